"""Stop-gap of the lead, to be overwritten by the helper's full version."""

from dataclasses import dataclass

from PIL import Image

from llava.conversation import render


@dataclass(frozen=True)
class Encoded:
    input_ids: list[int]
    labels: list[int]
    prefix_length: int
    num_images: int


def _encode(rendered, tokenizer, num_patches):
    ids, labels, prefix = [], [], 0
    offset = 0
    pieces = rendered.text.split("<image>")
    for number, piece in enumerate(pieces):
        out = tokenizer(piece, return_offsets_mapping=True)
        for token, (a, b) in zip(out.input_ids, out.offset_mapping, strict=True):
            if number and token == tokenizer.bos_token_id:
                continue
            ids.append(token)
            hit = any(s <= offset + a and offset + b <= e and b > a for s, e in rendered.answer_spans)
            labels.append(token if hit else -100)
        offset += len(piece) + len("<image>")
        if number < len(pieces) - 1:
            ids += [-200] * num_patches
            labels += [-100] * num_patches
            prefix = len(ids)
    return Encoded(ids, labels, prefix, len(pieces) - 1)


def encode_sample(turns, template, tokenizer, *, num_patches, max_length):
    done = []
    for role, text in turns:
        if "<image>" in text:
            text = "<image>\n" + text.replace("<image>", "").strip()
        done.append((role, text))
    return _encode(render(template, done), tokenizer, num_patches)


def encode_question(text, template, tokenizer, *, num_patches, has_image):
    text = ("<image>\n" if has_image else "") + text
    return _encode(render(template, [("human", text), ("gpt", None)]), tokenizer, num_patches)


def load_image(path):
    with Image.open(path) as image:
        return image.convert("RGB")


def load_image_processor(folder):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil.from_pretrained(str(folder))


def process_image(image, image_processor, *, image_aspect_ratio):
    return image_processor(image, return_tensors="pt")["pixel_values"][0]
