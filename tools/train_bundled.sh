#!/usr/bin/env bash
# Train the bundled model on, in rounds, beside other work:  tools/train_bundled.sh FOLDER MINUTES
#
# FOLDER lies outside the checkout. On the first run it gets a frozen clone of the checkout with an environment of its
# own; later changes of the checkout do not reach it until FOLDER/clone is removed. FOLDER/packages must hold the
# showroom's packages (jedi showroom build names the commands). Every round draws new sets, starts from the weights of
# the round before (the first from the bundled model), and ends with scores and sheets in its own folder. After MINUTES
# the run saves and stops in order; the same command goes on. A checkpoint is written every 5 minutes.
#
#   ROUND_MINUTES=60  training time of a round      THREADS=1  of the training
#   PHOTOS            a folder of photographed subjects to score on too
#   VIEWS=2           views of each model in the showroom
#   SEED=1000         of the first round's sets; give another where FOLDER is new and the bundled model had that one
#   DEVICE=cpu|cuda   where to train                SUBJECTS   sets drawn for a round; the recipe's if not given
set -euo pipefail

[[ $# -eq 2 && $2 =~ ^[0-9]+$ ]] || { sed -n '2p' "$0" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
deadline=$((SECONDS + 60 * $2))
root=$(cd "$(dirname "$0")/.." && pwd)
export OMP_NUM_THREADS=${THREADS:-1}

[[ $folder != "$root"/* ]] || { echo "FOLDER must lie outside the checkout: $folder" >&2; exit 2; }
exec 9>"$folder/lock"
flock -n 9 || { echo "A training runs in $folder already." >&2; exit 1; }

if [[ ! -d $folder/clone ]]; then
  rm -rf "$folder/clone.partial"
  git clone -q "$root" "$folder/clone.partial"
  mv "$folder/clone.partial" "$folder/clone"
fi
make -s -C "$folder/clone" .venv/.ready
jedi=$folder/clone/.venv/bin/jedi

# Run a command at the lowest priority until the budget is spent; SIGTERM makes a training save and stop.
within_budget() {
  local left=$((deadline - SECONDS))
  ((left > 0)) || return 124
  timeout --signal=TERM --kill-after=120 "$left" nice -n 19 "$@"
}

# Score a round's model on held-out subjects of both worlds, and on PHOTOS where they are given.
score() {
  [[ -d $folder/held-out ]] || within_budget "$jedi" showroom sets --packages "$folder/packages" \
    --folder "$folder/showroom" --split held_out --alike 1 --sets 30 --pictures 4 --out "$folder/held-out" || return
  within_budget "$jedi" photos score "$folder/held-out/subjects" --model "$1/model" --out "$1/held-out" || return
  within_budget "$jedi" toybox score --references 1 --pairs 60 --model "$1/model" --out "$1/toybox.json" || return
  [[ -z ${PHOTOS:-} ]] ||
    within_budget "$jedi" photos score "$PHOTOS" --model "$1/model" --out "$1/photos" || return
}

# After a command that did not succeed: stop in order if the budget or a signal ended it, else fail as it did.
stop() {
  if (($1 == 124 || $1 == 130 || $1 == 143)); then
    echo "Stopped in order; the same command goes on."
    exit 0
  fi
  echo "A command failed with status $1; $folder/train.log may say more." >&2
  exit "$1"
}

within_budget "$jedi" showroom build --packages "$folder/packages" --out "$folder/showroom" --views "${VIEWS:-2}" ||
  stop $?

mkdir -p "$folder/rounds"
previous=toybox
for ((round = 0; ; round++)); do
  name=$(printf '%s/rounds/%03d' "$folder" "$round")
  if [[ ! -e $name/done ]]; then
    within_budget "$jedi" train showroom --init "$previous" --stage sets --out "$name" \
      --device "${DEVICE:-cpu}" --minutes "${ROUND_MINUTES:-60}" \
      --set "seed=$((${SEED:-1000} + round))" --set save_minutes=5 --set sample_minutes=60 \
      --set "showroom.packages=$folder/packages" --set "showroom.folder=$folder/showroom" \
      ${SUBJECTS:+--set "stages.1.subjects=$SUBJECTS"} >>"$folder/train.log" 2>&1 || stop $?
    touch "$name/done"
  fi
  if [[ ! -e $name/scored ]]; then
    score "$name" >>"$folder/train.log" 2>&1 || stop $?
    touch "$name/scored"
  fi
  previous=$name/model
done
