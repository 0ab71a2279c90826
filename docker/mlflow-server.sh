#!/bin/sh
# Start an MLflow server with authentication: the administrator's name and password come from the environment.
set -eu
: "${MLFLOW_ADMIN_USERNAME:?name the administrator}"
: "${MLFLOW_ADMIN_PASSWORD:?set a password}"
: "${MLFLOW_FLASK_SERVER_SECRET_KEY:?set a secret for the session cookies}"
: "${MLFLOW_BACKEND_STORE_URI:?name the database of the tracking store}"
: "${MLFLOW_AUTH_DATABASE_URI:?name the database of users and permissions}"

umask 077
settings=$(mktemp)
# ConfigParser reads % as the start of a reference
escape() { printf '%s' "$1" | sed 's/%/%%/g'; }
cat >"$settings" <<END
[mlflow]
default_permission = READ
database_uri = $(escape "$MLFLOW_AUTH_DATABASE_URI")
admin_username = $(escape "$MLFLOW_ADMIN_USERNAME")
admin_password = $(escape "$MLFLOW_ADMIN_PASSWORD")
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
END
export MLFLOW_AUTH_CONFIG_PATH="$settings"
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
exec mlflow server --app-name basic-auth --host "${MLFLOW_HOST:-127.0.0.1}" --port "${MLFLOW_PORT:-5000}" \
    --backend-store-uri "$MLFLOW_BACKEND_STORE_URI" --artifacts-destination "${MLFLOW_ARTIFACTS:-/mlflow}" "$@"
