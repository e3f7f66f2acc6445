#!/bin/bash
# usage: unshare --mount --pid --net --fork --mount-proc --kill-child launcher.sh WORK REPOSITORY
#
# What a lab does with cluster/local.yaml, over a real ssh server, on a machine of its own: processes, network and Ray's
# folder are this namespace's, so that the `ray stop` in the launcher's commands meets no other Ray.
#
# WORK has: laptop/ and node/ (homes), data/tiny/*, space.yaml; node/.dpsweep/venv and laptop/bin/ray are made before.
set -euo pipefail
work=$1 laptop=$1/laptop node=$1/node

ip link set lo up
mkdir -p /tmp/ray /run/sshd
mount -t tmpfs tmpfs /tmp/ray

ssh-keygen -q -t ed25519 -N "" -f "$work/host_key"
ssh-keygen -q -t ed25519 -N "" -f "$laptop/id_ed25519"
cat > "$work/sshd_config" <<CONFIG
ListenAddress 127.0.0.1:22
HostKey $work/host_key
AuthorizedKeysFile $laptop/id_ed25519.pub
PidFile none
StrictModes no
PasswordAuthentication no
PermitRootLogin prohibit-password
SetEnv HOME=$node PIP_NO_INDEX=1 PIP_NO_BUILD_ISOLATION=0
CONFIG
/usr/sbin/sshd -f "$work/sshd_config" -E "$work/sshd.log"

export HOME=$laptop PATH="$laptop/bin:$PATH"
cd "$laptop/dpsweep"
sed -e 's/REPLACE_HEAD_IP/127.0.0.1/' -e 's/REPLACE_WORKER_IP//' -e 's/REPLACE_SSH_USER/root/' \
  -e "s|~/.ssh/id_ed25519|$laptop/id_ed25519|" cluster/local.yaml > cluster/rendered.yaml
(umask 077; ray get-auth-token --generate > "$work/token")
cp "$work/space.yaml" "$node/space.yaml"
cp "$work/space.yaml" .

say() { echo "== $1"; }
say up
ray up -y --no-config-cache cluster/rendered.yaml
say submit
ray submit --no-config-cache cluster/rendered.yaml sweeps/run.py -- "$node/space.yaml" --name by_ssh --storage "$work/storage" --data-dir "$work/data"
say "ray submit: $?"
dpsweep submit cluster/rendered.yaml -- space.yaml --name by_job --storage "$work/storage" --data-dir "$work/data" | tee "$work/job.log"
say "dpsweep submit: ${PIPESTATUS[0]}"
set +e
ray submit --no-config-cache cluster/rendered.yaml sweeps/run.py -- no_such_space --storage "$work/storage"
say "a wrong space by ray submit: $?"
dpsweep doctor --cluster cluster/rendered.yaml --storage "$work/storage"
say "doctor: $?"
set -e
say down
ray down -y cluster/rendered.yaml
sleep 3
say "left of Ray: $(pgrep -c raylet || true)"
