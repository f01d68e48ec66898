#!/usr/bin/env bash
# A Cloud TPU VM or pod from creation to deletion; `tpu_vm.sh --help` tells how.
set -euo pipefail

usage() {
  cat <<'END'
usage: tpu_vm.sh create|setup|copy|logs|delete [OPTIONS]
       tpu_vm.sh run|resume [OPTIONS] -- COMMAND [ARGUMENT ...]

  create   makes the TPU VM; all its workers, if it is a pod
  setup    installs Python 3.12 in a virtual environment, on all workers
  copy     copies this repository (what git does not ignore) to all workers and installs it
  run      starts COMMAND in the background on all workers, in the copied repository
  logs     follows the log of the run on one worker
  resume   goes on after pre-emption: creates, sets up and copies again if the VM is gone, then runs
           COMMAND; `eejax run` gets --resume. Does nothing if the run is still going
  delete   deletes the TPU VM

options, and the environment variables that set their defaults:
  --name NAME        TPU_NAME      name of the TPU VM (needed)
  --zone ZONE        TPU_ZONE      such as us-central1-a (needed)
  --project PROJECT  TPU_PROJECT   default: that of gcloud
  --type TYPE        TPU_TYPE      accelerator type (default: v5litepod-8)
  --version VERSION  TPU_VERSION   runtime version (default: v2-alpha-tpuv5-lite)
  --spot             TPU_SPOT=1    a cheaper VM that may be pre-empted
  --bucket gs://...  TPU_BUCKET    where worker 0 copies its folder runs/ every minute, and where
                                   resume gets it back from; without it, checkpoints are lost with
                                   a pre-empted VM
  --worker N         TPU_WORKER    whose log to follow (default: 0)
  --yes                            delete without asking
  --dry-run                        print the commands instead of running them

example:
  export TPU_NAME=pod TPU_ZONE=us-central1-a TPU_TYPE=v5litepod-16 TPU_BUCKET=gs://my-bucket/pod
  tpu_vm.sh create --spot && tpu_vm.sh setup && tpu_vm.sh copy
  tpu_vm.sh run -- python -m eejax.experiment.runs.multihost_digits runs/digits
  tpu_vm.sh logs
  tpu_vm.sh resume --spot -- python -m eejax.experiment.runs.multihost_digits runs/digits
  tpu_vm.sh delete

A pod needs the key of gcloud in the agent: ssh-add ~/.ssh/google_compute_engine
END
}

fail() {
  echo "tpu_vm.sh: $1" >&2
  exit 2
}

name="${TPU_NAME:-}" zone="${TPU_ZONE:-}" project="${TPU_PROJECT:-}" bucket="${TPU_BUCKET:-}"
type="${TPU_TYPE:-v5litepod-8}" version="${TPU_VERSION:-v2-alpha-tpuv5-lite}"
spot="${TPU_SPOT:-0}" worker="${TPU_WORKER:-0}" yes=0 dry=0

# ---------------------------------------------------------------------------- arguments

action="${1:-}"
case "$action" in
  -h | --help | help) usage; exit 0 ;;
  create | setup | copy | run | logs | resume | delete) shift ;;
  '') usage >&2; exit 2 ;;
  *) fail "unknown command '$action'; choose create, setup, copy, run, logs, resume or delete" ;;
esac

command=()
while [ $# -gt 0 ]; do
  option="$1"
  shift
  case "$option" in
    -h | --help) usage; exit 0 ;;
    --spot) spot=1; continue ;;
    --yes) yes=1; continue ;;
    --dry-run) dry=1; continue ;;
    --) command=("$@"); break ;;
    --*=*) value="${option#*=}" option="${option%%=*}" ;;
    --name | --zone | --project | --type | --version | --bucket | --worker)
      [ $# -gt 0 ] || fail "$option needs a value"
      value="$1"
      shift
      ;;
    *) fail "unknown argument '$option'; see --help (a COMMAND comes after --)" ;;
  esac
  case "$option" in
    --name) name="$value" ;;
    --zone) zone="$value" ;;
    --project) project="$value" ;;
    --type) type="$value" ;;
    --version) version="$value" ;;
    --bucket) bucket="$value" ;;
    --worker) worker="$value" ;;
    *) fail "unknown option '$option'; see --help" ;;
  esac
done

[ -n "$name" ] || fail "--name or TPU_NAME is missing"
[ -n "$zone" ] || fail "--zone or TPU_ZONE is missing"
[[ "$name" =~ ^[a-z][a-z0-9-]*$ ]] || fail "name '$name' must be a-z, 0-9 and -, from a letter on"
[[ "$worker" =~ ^[0-9]+$ ]] || fail "worker '$worker' must be a number"
[[ -z "$bucket" || "$bucket" =~ ^gs://[^/]+ ]] || fail "bucket '$bucket' must begin with gs://"
case "$action" in
  run | resume) [ ${#command[@]} -gt 0 ] || fail "$action needs -- COMMAND" ;;
  *) [ ${#command[@]} -eq 0 ] || fail "$action takes no COMMAND" ;;
esac

# ---------------------------------------------------------------------------- pieces

# Prints a command; runs it unless this is a dry run.
run() {
  printf '+' >&3
  printf ' %q' "$@" >&3
  printf '\n' >&3
  [ "$dry" = 1 ] || "$@"
}

# One gcloud command about the VM: tpu ACTION [TARGET ...] [FLAG ...]
tpu() {
  run gcloud compute tpus tpu-vm "$@" "--zone=$zone" ${project:+"--project=$project"}
}

# Runs a line of bash on a worker, or on all.
on() {
  tpu ssh "$name" "--worker=$1" "--command=$2"
}

# Quotes words for the shell on the other side.
quoted() {
  local line
  printf -v line '%q ' "$@"
  printf '%s' "${line% }"
}

create() {
  local flags=("--accelerator-type=$type" "--version=$version")
  [ "$spot" = 0 ] || flags+=(--spot)
  tpu create "$name" "${flags[@]}"
}

setup() {
  # The image has an older Python than eejax needs; uv brings its own.
  on all 'set -e; mkdir -p ~/eejax/runs; python3 -m pip install --quiet --user uv;
~/.local/bin/uv venv --quiet --allow-existing --python 3.12 ~/eejax/venv'
}

copy() {
  local root archive
  root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
  archive="${TMPDIR:-/tmp}/eejax-$name-$$.tar.gz"
  echo "# packs what git does not ignore in $root" >&3
  if [ "$dry" = 0 ]; then
    # shellcheck disable=SC2064
    trap "rm -f $(quoted "$archive")" EXIT
    pack "$root" "$archive"
  fi
  tpu scp "$archive" "$name:eejax.tar.gz" --worker=all
  on all 'set -e; rm -rf ~/eejax/code; mkdir -p ~/eejax/code; cd ~/eejax/code;
tar -xzf ~/eejax.tar.gz; ln -s ~/eejax/runs runs; export VIRTUAL_ENV=~/eejax/venv;
~/.local/bin/uv pip install --quiet --constraint constraints.txt --editable . "jax[tpu]"'
}

# Packs a working tree: also files that are new, but none that was deleted.
pack() {
  local file
  (cd "$1" && git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
    tar --null --files-from=- -czf "$2")
}

start() {
  local line
  # In a session of its own, so that the run outlives this connection.
  # `auto` makes the processes of all workers one run.
  line="PATH=~/eejax/venv/bin:\$PATH; export EEJAX_PROCESSES=auto; cd ~/eejax/code;
if kill -0 \$(cat ~/eejax/run.pid) 2>/dev/null; then echo 'still running'; exit 0; fi;
setsid nohup $(quoted "${command[@]}") > ~/eejax/run.log 2>&1 < /dev/null &
echo \$! > ~/eejax/run.pid"
  on all "$line"
  if [ -n "$bucket" ]; then
    on 0 "cd ~/eejax; if kill -0 \$(cat sync.pid) 2>/dev/null; then exit 0; fi;
setsid nohup bash -c $(quoted "$(sync_loop)") > sync.log 2>&1 < /dev/null &
echo \$! > ~/eejax/sync.pid"
  fi
}

# A copy that is cut off amid a checkpoint does no harm: its manifest does not agree, so the one
# before is restored.
sync_loop() {
  cat <<END
copy() { gcloud storage rsync --recursive ~/eejax/runs $(quoted "$bucket"); }
while kill -0 \$(cat ~/eejax/run.pid); do copy; sleep 60; done
copy
END
}

fetch() {
  # A run that was pre-empted before its first copy has left nothing there.
  on 0 "gcloud storage rsync --recursive $(quoted "$bucket") ~/eejax/runs ||
echo 'nothing to fetch from the bucket: starting anew'"
}

resume() {
  local state
  if [ "${command[0]}" = eejax ] && [ "${command[1]:-}" = run ]; then
    [[ " ${command[*]} " = *' --resume '* ]] || command+=(--resume)
  fi
  # Not describe, which fails for a VM that is gone as it does without a network.
  state="$(tpu list "--filter=name~(^|/)$name\$" '--format=value(state)')"
  if [ "$dry" = 1 ]; then
    state=PREEMPTED
    echo "# if it is $state:" >&3
  fi
  case "$state" in
    READY) ;;
    '' | PREEMPTED | TERMINATED)
      [ -z "$state" ] || tpu delete "$name" --quiet
      create
      setup
      copy
      [ -z "$bucket" ] || fetch
      ;;
    *) fail "TPU VM $name is in state $state; try again when it is READY or PREEMPTED" ;;
  esac
  start
}

# ---------------------------------------------------------------------------- action

# What is run is told on standard error, and in a dry run, where it is the answer, on output.
if [ "$dry" = 1 ]; then exec 3>&1; else exec 3>&2; fi

case "$action" in
  create) create ;;
  setup) setup ;;
  copy) copy ;;
  run) start ;;
  resume) resume ;;
  logs) on "$worker" 'tail -n 100 -F ~/eejax/run.log' ;;
  delete) if [ "$yes" = 1 ]; then tpu delete "$name" --quiet; else tpu delete "$name"; fi ;;
esac
