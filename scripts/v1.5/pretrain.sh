#!/usr/bin/env bash
# Stage 1: train the projector on image-caption pairs; language model and vision tower stay as they are.
# Every variable can be set from outside; flags after the script's name go to the trainer: bash scripts/v1.5/pretrain.sh --max_steps 10
set -euo pipefail
cd "$(dirname "$0")/../.."

MODEL_PATH=${MODEL_PATH:-./checkpoints/vicuna-7b-v1.5}             # language model
VISION_TOWER=${VISION_TOWER:-openai/clip-vit-large-patch14-336}    # vision tower
VERSION=${VERSION:-plain}                                          # conversation template
DATA_PATH=${DATA_PATH:-./playground/data/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json}
IMAGE_FOLDER=${IMAGE_FOLDER:-./playground/data/LLaVA-Pretrain/images}
OUTPUT_DIR=${OUTPUT_DIR:-./checkpoints/llava-v1.5-7b-pretrain}
IMAGE_ASPECT_RATIO=${IMAGE_ASPECT_RATIO:-square}                   # square (crop) or pad
PROJECTOR_TYPE=${PROJECTOR_TYPE:-mlp2x_gelu}
SELECT_LAYER=${SELECT_LAYER:--2}                                   # hidden layer of the vision tower
EPOCHS=${EPOCHS:-1}
BATCH_SIZE=${BATCH_SIZE:-32}                                       # samples per device
GRADIENT_ACCUMULATION=${GRADIENT_ACCUMULATION:-1}
LEARNING_RATE=${LEARNING_RATE:-1e-3}
MODEL_MAX_LENGTH=${MODEL_MAX_LENGTH:-2048}                         # tokens of a sample, picture included
SAVE_STEPS=${SAVE_STEPS:-24000}

# Several GPUs or machines (docs/operations.md); without these: all GPUs of this machine, or one process.
NUM_GPUS=${NUM_GPUS:-}                                             # processes on this machine, one per GPU
NUM_NODES=${NUM_NODES:-}                                           # machines: start this script on each,
NODE_RANK=${NODE_RANK:-0}                                          # with its number from 0
MASTER_ADDR=${MASTER_ADDR:-}                                       # and the first one's name
MASTER_PORT=${MASTER_PORT:-29500}
HOSTFILE=${HOSTFILE:-}                                             # or a DeepSpeed host file; start it on one

source scripts/common/train.sh
prepare_training ./scripts/zero2.json
run_training \
    --vision_tower "$VISION_TOWER" \
    --mm_projector_type "$PROJECTOR_TYPE" \
    --mm_vision_select_layer "$SELECT_LAYER" \
    --tune_mm_mlp_adapter True \
    "$@"
