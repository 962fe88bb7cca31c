"""The peers that searches are measured beside: scripts that know nothing of hpo, each run by an environment of its own."""
