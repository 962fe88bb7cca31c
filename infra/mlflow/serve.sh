#!/bin/sh
# Start an MLflow server for several people: users and passwords, PostgreSQL, nothing that runs a visitor's code.
#
# All is said by the environment, so that no password is in a process list. Each variable marked * may instead be given as
# NAME_FILE, a file that holds its value (a mounted secret); both at once are refused.
#
#   PGHOST, PGDATABASE, PGUSER    needed: the database, which this user owns; runs, models and users are kept there
#   PGPASSWORD *                  needed, unless PGPASSFILE names libpq's own file of passwords
#   PGPORT, PGSSLMODE, ...        5432, and whatever else libpq knows: PGSSLMODE=verify-full where the database is elsewhere
#   MLFLOW_AUTH_ADMIN_PASSWORD *  needed: the first administrator's, 12 characters at least; later the server's users hold
#   MLFLOW_AUTH_ADMIN_USERNAME    admin
#   MLFLOW_FLASK_SERVER_SECRET_KEY *  needed: 32 random characters at least, such as `openssl rand -hex 32` makes
#   MLFLOW_SERVER_ALLOWED_HOSTS   needed: by which names it is reached, with their ports: mlflow.example:5000,127.0.0.1:5000
#   MLFLOW_SERVER_CORS_ALLOWED_ORIGINS  none: other web pages that may use it
#   MLFLOW_HOST, MLFLOW_PORT      127.0.0.1, 5000: where it listens; 0.0.0.0 in a container
#   MLFLOW_TLS_CERT, MLFLOW_TLS_KEY  none: PEM files; without them put a proxy before it that ends TLS
#   MLFLOW_ARTIFACTS_DESTINATION  /var/lib/mlflow/artifacts: a folder, or s3://BUCKET/PREFIX; clients reach it through the server
#   MLFLOW_S3_ENDPOINT_URL, AWS_ACCESS_KEY_ID *, AWS_SECRET_ACCESS_KEY *  for s3://
#   MLFLOW_AUTH_CONFIG_PATH       basic_auth.ini beside this script
#
# It needs Python with `pip install 'hpo[server]'` on the PATH. It refuses to start, with exit code 78, where something is missing.
set -eu

refuse() {
    printf 'mlflow: %s\n' "$*" >&2
    exit 78
}

# Take NAME from the file that NAME_FILE names, if one does.
from_file() {
    eval "value=\${$1:-} file=\${$1_FILE:-}"
    if [ -n "$file" ]; then
        [ -z "$value" ] || refuse "$1 and $1_FILE are both set; unset one"
        [ -r "$file" ] || refuse "$1_FILE: $file cannot be read by user $(id -u)"
        value=$(cat -- "$file")
        [ -n "$value" ] || refuse "$1_FILE: $file is empty"
        unset "$1_FILE"
        export "$1=$value"
    fi
}

# Refuse to go on without NAME; $2 says what it is.
need() {
    eval "value=\${$1:-}"
    [ -n "$value" ] || refuse "$1 is not set: $2"
    export "${1?}"
}

for name in PGPASSWORD MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY; do
    from_file "$name"
done
need PGHOST "the host of PostgreSQL"
need PGDATABASE "the database in it"
need PGUSER "who owns that database"
[ -n "${PGPASSFILE:-}" ] || need PGPASSWORD "this user's password; or set PGPASSWORD_FILE"
need MLFLOW_AUTH_ADMIN_PASSWORD "the first administrator's password; or set MLFLOW_AUTH_ADMIN_PASSWORD_FILE"
need MLFLOW_FLASK_SERVER_SECRET_KEY "random characters, such as \`openssl rand -hex 32\` makes; or set MLFLOW_FLASK_SERVER_SECRET_KEY_FILE"
need MLFLOW_SERVER_ALLOWED_HOSTS "by which names the server is reached, such as mlflow.example:5000"

MLFLOW_AUTH_ADMIN_USERNAME=${MLFLOW_AUTH_ADMIN_USERNAME:-admin}
[ "${#MLFLOW_AUTH_ADMIN_PASSWORD}" -ge 12 ] || refuse "MLFLOW_AUTH_ADMIN_PASSWORD is shorter than 12 characters"
[ "$MLFLOW_AUTH_ADMIN_PASSWORD" != "$MLFLOW_AUTH_ADMIN_USERNAME" ] || refuse "MLFLOW_AUTH_ADMIN_PASSWORD is the administrator's name"
case $MLFLOW_AUTH_ADMIN_PASSWORD in
password1234 | *changeme* | *change-me*) refuse "MLFLOW_AUTH_ADMIN_PASSWORD is one that everybody knows; \`openssl rand -base64 18\` makes another" ;;
esac
[ "${#MLFLOW_FLASK_SERVER_SECRET_KEY}" -ge 32 ] || refuse "MLFLOW_FLASK_SERVER_SECRET_KEY is shorter than 32 characters"
case $MLFLOW_SERVER_ALLOWED_HOSTS in
*'*'*) refuse "MLFLOW_SERVER_ALLOWED_HOSTS holds a *; name each host and port, or pages of strangers can reach the server" ;;
esac
case ${MLFLOW_SERVER_CORS_ALLOWED_ORIGINS:-} in
*'*'*) refuse "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS holds a *; name each page's origin, such as https://dashboard.example" ;;
esac

MLFLOW_ARTIFACTS_DESTINATION=${MLFLOW_ARTIFACTS_DESTINATION:-/var/lib/mlflow/artifacts}
case $MLFLOW_ARTIFACTS_DESTINATION in
/* | *://*) ;;
*) refuse "MLFLOW_ARTIFACTS_DESTINATION is $MLFLOW_ARTIFACTS_DESTINATION; an absolute folder or s3://BUCKET/PREFIX is needed" ;;
esac
if [ -n "${MLFLOW_TLS_CERT:-}${MLFLOW_TLS_KEY:-}" ]; then
    for file in "${MLFLOW_TLS_CERT:-}" "${MLFLOW_TLS_KEY:-}"; do
        [ -r "$file" ] || refuse "MLFLOW_TLS_CERT and MLFLOW_TLS_KEY are both needed, and files that user $(id -u) can read"
    done
    MLFLOW_UVICORN_OPTS="--ssl-certfile $MLFLOW_TLS_CERT --ssl-keyfile $MLFLOW_TLS_KEY"
    export MLFLOW_UVICORN_OPTS
fi

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
export MLFLOW_AUTH_CONFIG_PATH="${MLFLOW_AUTH_CONFIG_PATH:-$here/basic_auth.ini}"
[ -r "$MLFLOW_AUTH_CONFIG_PATH" ] || refuse "MLFLOW_AUTH_CONFIG_PATH: $MLFLOW_AUTH_CONFIG_PATH cannot be read"
export MLFLOW_AUTH_ADMIN_USERNAME MLFLOW_ARTIFACTS_DESTINATION
export MLFLOW_HOST="${MLFLOW_HOST:-127.0.0.1}" MLFLOW_PORT="${MLFLOW_PORT:-5000}"
case $MLFLOW_PORT in
*[!0-9]*) refuse "MLFLOW_PORT is $MLFLOW_PORT; a number is needed (Kubernetes sets it for a Service mlflow, unless enableServiceLinks is false)" ;;
esac
export MLFLOW_WORKERS=1 # more would each know passwords for themselves, and answer 40 ms later
export MLFLOW_BACKEND_STORE_URI=postgresql+psycopg:// PGCONNECT_TIMEOUT="${PGCONNECT_TIMEOUT:-10}"
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false MLFLOW_ENABLE_AI_GATEWAY=false
export MLFLOW_BASIC_AUTH_FAIL_CLOSED=true MLFLOW_SERVER_ENABLE_GRAPHQL_AUTH=true MLFLOW_ENABLE_WORKSPACES=false
export MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true MLFLOW_SERVER_X_FRAME_OPTIONS=DENY
unset MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE MLFLOW_ENABLE_REMOTE_ASSISTANT MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS MLFLOW_GUNICORN_OPTS
unset MLFLOW_TRACKING_URI MLFLOW_REGISTRY_STORE_URI MLFLOW_DEFAULT_ARTIFACT_ROOT
export PYTHONSAFEPATH=1 # no module of the current folder stands in for one of the server's

python -c 'import hpo.mlflow_app' 2>/dev/null || refuse "hpo is not installed beside MLflow; pip install 'hpo[server]', or --no-deps hpo"
cd /
exec mlflow server --app-name hpo-basic-auth # MLflow's basic-auth, without its assistant
