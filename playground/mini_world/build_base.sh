#!/usr/bin/env bash
# Builds the mini world's base LLaVA from nothing, in LLaVA's stages, and scores it. About an hour and a half on two cores.
# Each stage is skipped when its result is there; everything before the last copy lies in playground/mini_world/build.
set -euo pipefail
cd "$(dirname "$0")/../.."

BUILD=${BUILD:-playground/mini_world/build}
OUT=${OUT:-playground/mini_world/base}
THREADS=${THREADS:-2}
IMAGES=${IMAGES:-22000}                 # training pictures
TOWER_STEPS=${TOWER_STEPS:-2400}        # vision tower, first round: half scenes, half people
TOWER_STEPS_2=${TOWER_STEPS_2:-1800}    # second round: mostly people
TEXT_STEPS=${TEXT_STEPS:-450}
PROJECTOR_STEPS=${PROJECTOR_STEPS:-250}
TUNING_EPOCHS=${TUNING_EPOCHS:-3}
SECOND_EPOCHS=${SECOND_EPOCHS:-2}         # second round of tuning: other questions, more of the hard kinds
THIRD_SAMPLES=${THIRD_SAMPLES:-48000}     # third round: words to repeat among so many other questions
FOURTH_IMAGES=${FOURTH_IMAGES:-14000}     # fourth round: new pictures, mostly sizes and captions
export OMP_NUM_THREADS=$THREADS HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
PYTHON=${PYTHON:-python}

stage() { echo "== $(date '+%H:%M:%S') $*"; }
mkdir -p "$BUILD"

if [ ! -f "$BUILD/data/truth.jsonl" ]; then
    stage "pictures and questions"
    "$PYTHON" -m playground.mini_world.base_data --out "$BUILD/data" --images "$IMAGES" --processes "$THREADS"
fi
if [ ! -f "$BUILD/tokenizer/tokenizer.json" ]; then
    stage "tokenizer"
    "$PYTHON" -m playground.mini_world.build_tokenizer --data "$BUILD/data" --out "$BUILD/tokenizer"
fi
if [ ! -f "$BUILD/vision_tower_1/scores.json" ]; then
    stage "vision tower, first round"
    "$PYTHON" -m playground.mini_world.pretrain_vision --out "$BUILD/vision_tower_1" --steps "$TOWER_STEPS" \
        --scenes 12000 --quartets 6000 --processes "$THREADS"
fi
if [ ! -f "$BUILD/vision_tower/scores.json" ]; then
    stage "vision tower, second round"
    "$PYTHON" -m playground.mini_world.pretrain_vision --out "$BUILD/vision_tower" \
        --start-from "$BUILD/vision_tower_1" --steps "$TOWER_STEPS_2" --scenes 8000 --quartets 9000 \
        --batch-scenes 16 --batch-quartets 12 --learning-rate-scale 0.5 --seed 1 --processes "$THREADS"
fi
if [ ! -f "$BUILD/language_model/model.safetensors" ]; then
    stage "language model"
    "$PYTHON" -m playground.mini_world.pretrain_text --data "$BUILD/data" --tokenizer "$BUILD/tokenizer" \
        --out "$BUILD/language_model" --steps "$TEXT_STEPS"
fi

export IMAGE_FOLDER=$BUILD/data/images IMAGE_ASPECT_RATIO=pad MODEL_MAX_LENGTH=512 BF16=True WORKERS=1 SEED=0
export LOGGING_STEPS=50 SAVE_STEPS=500 SAVE_TOTAL_LIMIT=2
if [ ! -f "$BUILD/projector/mm_projector.bin" ]; then
    stage "projector"
    MODEL_PATH=$BUILD/language_model VISION_TOWER=$BUILD/vision_tower DATA_PATH=$BUILD/data/pretrain.json \
        OUTPUT_DIR=$BUILD/projector BATCH_SIZE=64 LEARNING_RATE=2e-3 \
        bash scripts/v1.5/pretrain.sh --max_steps "$PROJECTOR_STEPS" --check_pictures none
fi
if [ ! -f "$BUILD/tuned/model.safetensors" ]; then
    stage "instruction tuning"
    MODEL_PATH=$BUILD/language_model VISION_TOWER=$BUILD/vision_tower PROJECTOR=$BUILD/projector/mm_projector.bin \
        DATA_PATH=$BUILD/data/finetune.json OUTPUT_DIR=$BUILD/tuned BATCH_SIZE=128 EPOCHS=$TUNING_EPOCHS \
        LEARNING_RATE=${LEARNING_RATE:-1.5e-3} \
        bash scripts/v1.5/finetune.sh --adam_beta2 0.95 --check_pictures none
fi
if [ ! -f "$BUILD/data/second.json" ]; then
    stage "questions of the second round"
    "$PYTHON" -m playground.mini_world.base_data --out "$BUILD/data" --images "$IMAGES" --processes "$THREADS" --round 2
fi
if [ ! -f "$BUILD/tuned_2/model.safetensors" ]; then
    stage "instruction tuning, second round"
    MODEL_PATH=$BUILD/tuned DATA_PATH=$BUILD/data/second.json OUTPUT_DIR=$BUILD/tuned_2 BATCH_SIZE=128 \
        EPOCHS=$SECOND_EPOCHS LEARNING_RATE=${SECOND_LEARNING_RATE:-1e-3} \
        bash scripts/v1.5/finetune_task.sh --adam_beta2 0.95 --check_pictures none
fi
if [ ! -f "$BUILD/data/third.json" ]; then
    stage "questions of the third round"
    "$PYTHON" -m playground.mini_world.copying --questions "$BUILD/data/second.json" \
        --texts "$BUILD/data/text.json" --out "$BUILD/data/third.json" --samples "$THIRD_SAMPLES"
fi
if [ ! -f "$BUILD/tuned_3/model.safetensors" ]; then
    stage "instruction tuning, third round"
    MODEL_PATH=$BUILD/tuned_2 DATA_PATH=$BUILD/data/third.json OUTPUT_DIR=$BUILD/tuned_3 BATCH_SIZE=128 \
        EPOCHS=1 LEARNING_RATE=${THIRD_LEARNING_RATE:-6e-4} \
        bash scripts/v1.5/finetune_task.sh --adam_beta2 0.95 --check_pictures none
fi
if [ ! -f "$BUILD/data_4/mixed.json" ]; then
    stage "pictures and questions of the fourth round"
    "$PYTHON" -m playground.mini_world.base_data --out "$BUILD/data_4" --images "$FOURTH_IMAGES" --seed 1 --processes "$THREADS"
    "$PYTHON" -m playground.mini_world.base_data --out "$BUILD/data_4" --images "$FOURTH_IMAGES" --seed 1 --processes "$THREADS" \
        --round 4
    "$PYTHON" -m playground.mini_world.copying --questions "$BUILD/data_4/fourth.json" --texts "$BUILD/data_4/text.json" \
        --out "$BUILD/data_4/mixed.json" --samples 200000 --seed 1
fi
if [ ! -f "$BUILD/tuned_4/model.safetensors" ]; then
    stage "instruction tuning, fourth round"
    MODEL_PATH=$BUILD/tuned_3 DATA_PATH=$BUILD/data_4/mixed.json IMAGE_FOLDER=$BUILD/data_4/images \
        OUTPUT_DIR=$BUILD/tuned_4 BATCH_SIZE=128 EPOCHS=1 LEARNING_RATE=${FOURTH_LEARNING_RATE:-6e-4} \
        bash scripts/v1.5/finetune_task.sh --adam_beta2 0.95 --check_pictures none
fi
stage "scores"
"$PYTHON" -m playground.mini_world.finish_base --build "$BUILD" --out "$OUT"
