#!/bin/sh
# What the example's pipeline does, as one would write it without a platform: provision, configure,
# install, train, serve, ask. Run again in the same folder it finds what it made the first time.
#
# $1 the project   $2 infra of the clone   $3 file with the requirements   $4 file for the server's pid
set -eu
project=$1 infra=$2 requirements=$3 pid=$4
socket=$PWD/server.sock

mkdir -p terraform
cp "$infra"/terraform/local/*.tf terraform/
terraform -chdir=terraform init -input=false -no-color
terraform -chdir=terraform apply -input=false -no-color -auto-approve -var name=digits

ANSIBLE_ROLES_PATH=$infra/ansible/roles ansible-playbook -i localhost, -c local \
    -e ansible_python_interpreter="$BENCH_PYTHON" "$infra"/ansible/playbooks/configure.yaml

[ -x venv/bin/python ] || uv venv --quiet --python "$BENCH_PYTHON" venv
uv pip install --quiet --compile-bytecode --python venv/bin/python --requirement "$requirements"

rm -rf model
SM_CHANNEL_DATA=$project/data SM_MODEL_DIR=$PWD/model \
    venv/bin/python "$project/train.py" --epochs 10 --learning-rate 0.005 --batch-size 64 --seed 0

[ ! -f "$pid" ] || kill "$(cat "$pid")" || true
rm -f "$socket"
"$BENCH_PYTHON" -P -m tracklayer.serving --model model --name digits --version 1 --socket "$socket" \
    >server.log 2>&1 &
echo $! >"$pid"
tries=0
until curl --silent --fail --unix-socket "$socket" http://localhost/v2/health/ready >/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || { cat server.log; exit 1; }
    sleep 0.05
done
curl --silent --show-error --fail --unix-socket "$socket" -H 'Content-Type: application/json' \
    --data-binary @"$project/request.json" http://localhost/v2/models/digits/infer
