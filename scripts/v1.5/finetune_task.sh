#!/usr/bin/env bash
# Teach a LLaVA your own data in full: language model and projector.
# Every variable can be set from outside; flags after the script's name go to the trainer: bash scripts/v1.5/finetune_task.sh --max_steps 10
set -euo pipefail
cd "$(dirname "$0")/../.."

MODEL_PATH=${MODEL_PATH:-./checkpoints/llava-v1.5-7b}              # the LLaVA that learns
VERSION=${VERSION:-v1}                                             # conversation template
DATA_PATH=${DATA_PATH:-./playground/data/train.json}               # your conversations (docs/own_data.md)
IMAGE_FOLDER=${IMAGE_FOLDER:-./playground/data/images}             # your pictures
OUTPUT_DIR=${OUTPUT_DIR:-./checkpoints/llava-v1.5-7b-task}
IMAGE_ASPECT_RATIO=${IMAGE_ASPECT_RATIO:-pad}                      # square (crop) or pad
EPOCHS=${EPOCHS:-1}
BATCH_SIZE=${BATCH_SIZE:-16}                                       # samples per device
GRADIENT_ACCUMULATION=${GRADIENT_ACCUMULATION:-1}
MODEL_MAX_LENGTH=${MODEL_MAX_LENGTH:-2048}                         # tokens of a sample, picture included
SAVE_STEPS=${SAVE_STEPS:-500}
LEARNING_RATE=${LEARNING_RATE:-2e-5}

# Several GPUs or machines (docs/operations.md); without these: all GPUs of this machine, or one process.
NUM_GPUS=${NUM_GPUS:-}                                             # processes on this machine, one per GPU
NUM_NODES=${NUM_NODES:-}                                           # machines: start this script on each,
NODE_RANK=${NODE_RANK:-0}                                          # with its number from 0
MASTER_ADDR=${MASTER_ADDR:-}                                       # and the first one's name
MASTER_PORT=${MASTER_PORT:-29500}
HOSTFILE=${HOSTFILE:-}                                             # or a DeepSpeed host file; start it on one

source scripts/common/train.sh
prepare_training ./scripts/zero3.json
run_training "$@"
