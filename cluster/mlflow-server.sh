#!/bin/sh
# An MLflow server on PostgreSQL that asks everyone for user and password. Everything comes from the environment, nothing
# has a default password, and no secret stands in an argument, where every process of the machine could read it.
#
#   PGHOST PGUSER PGDATABASE         the database                 PGPASSWORD   its password (or ~/.pgpass)
#   MLFLOW_AUTH_ADMIN_USERNAME, MLFLOW_AUTH_ADMIN_PASSWORD        the first user, made when the database is new
#   MLFLOW_FLASK_SERVER_SECRET_KEY   signs the forms' tokens
#   MLFLOW_HOST MLFLOW_PORT          where it listens (127.0.0.1, 5000)
#   MLFLOW_ALLOWED_HOSTS             names by which clients may call it (localhost and private addresses)
#   MLFLOW_ARTIFACTS                 folder or bucket URI of the artifacts (./mlartifacts)
set -eu
fail() { echo "mlflow-server: $1" >&2; exit 2; }
need() { eval "test -n \"\${$1:-}\"" || fail "$1 is not set; $2"; }
need PGHOST "name the database's host"
need PGUSER "name the database's user"
need PGDATABASE "name the database"
need MLFLOW_AUTH_ADMIN_USERNAME "name the first user"
need MLFLOW_AUTH_ADMIN_PASSWORD "choose a password of 12 characters or more: there is no default"
need MLFLOW_FLASK_SERVER_SECRET_KEY "give it 32 random bytes, such as \`openssl rand -hex 32\`"
test "${#MLFLOW_AUTH_ADMIN_PASSWORD}" -ge 12 || fail "MLFLOW_AUTH_ADMIN_PASSWORD has fewer than 12 characters"

database="postgresql://$PGUSER@$PGHOST:${PGPORT:-5432}/$PGDATABASE"
umask 077
MLFLOW_AUTH_CONFIG_PATH=$(mktemp)
export MLFLOW_AUTH_CONFIG_PATH
cat > "$MLFLOW_AUTH_CONFIG_PATH" <<INI
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = $database
# Checking a password costs more than the request itself: each worker remembers one that was right for so long.
auth_cache_ttl_seconds = 60
INI
exec mlflow server --app-name basic-auth --backend-store-uri "$database" \
  --artifacts-destination "${MLFLOW_ARTIFACTS:-./mlartifacts}" \
  --host "${MLFLOW_HOST:-127.0.0.1}" --port "${MLFLOW_PORT:-5000}" --workers "${MLFLOW_WORKERS:-2}" \
  ${MLFLOW_ALLOWED_HOSTS:+--allowed-hosts "$MLFLOW_ALLOWED_HOSTS"}
