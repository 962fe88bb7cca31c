"""Several hosts on one machine: network namespaces, each with its own processes, host name and /tmp/ray. Needs root."""
