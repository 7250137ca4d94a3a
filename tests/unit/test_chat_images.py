"""What a chat demo gets of a conversation: fitted pictures, base64 files, gradio's pairs."""

import base64
import re
from io import BytesIO

import pytest
from PIL import Image

from llava.chat_images import as_base64, fit_for_chat, load_image_from_base64
from llava.conversation import conv_templates, default_conversation
from llava.errors import UsageError

WIDE = Image.new("RGB", (8, 4), "red")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
@pytest.mark.parametrize("fit", ["Pad", "Default", "Crop", "Resize"])
def test_every_mode_is_sent(mode: str, fit: str) -> None:
    fitted = fit_for_chat(WIDE.convert(mode), fit)
    assert load_image_from_base64(as_base64(fitted, "PNG")).size == fitted.size
    jpeg = load_image_from_base64(as_base64(fitted, "JPEG"))
    assert (jpeg.format, jpeg.size) == ("JPEG", fitted.size)


def test_padding_has_clips_mean_colour() -> None:
    padded = fit_for_chat(WIDE, "Pad")
    assert (padded.size, padded.getpixel((0, 0)), padded.getpixel((0, 4))) == (
        (8, 8),
        (122, 116, 104),
        (255, 0, 0),
    )


@pytest.mark.parametrize("size", [(5000, 1), (1, 5000), (1400, 1344), (1344, 1343), (9000, 7)])
def test_large_pictures_shrink_and_never_vanish(size: tuple[int, int]) -> None:
    found = fit_for_chat(Image.new("L", size), "Default").size
    assert max(found) <= 1344
    assert min(found) >= 1
    assert (found[0] > found[1]) == (size[0] > size[1])


def test_another_mode_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'Squash'; known: Pad, Default, Crop, Resize"):
        default_conversation.process_image(WIDE, "Squash")


def test_pictures_are_those_of_the_user_behind_the_canned_messages() -> None:
    conversation = conv_templates["v0"].copy()
    assert conversation.offset == len(conversation.messages) == 2
    assert conversation.get_images() == []
    conversation.append_message(conversation.roles[0], ("<image>\nwho?", WIDE, "Default"))
    conversation.append_message(conversation.roles[1], ("an answer's is not sent", WIDE, "Default"))
    conversation.append_message(conversation.roles[0], ("and here?", WIDE, "Pad"))
    sizes = [load_image_from_base64(text).size for text in conversation.get_images()]
    assert sizes == [(8, 4), (8, 8)]
    assert [image.size for image in conversation.get_images(return_pil=True)] == sizes


def test_pairs_for_gradio() -> None:
    conversation = conv_templates["v0"].copy()
    conversation.append_message("Human", ("<image>\nwho?", WIDE, "Pad"))
    conversation.append_message("Assistant", "Mira.")
    conversation.append_message("Human", "sure?")
    (first, answer), second = conversation.to_gradio_chatbot()
    assert (answer, second) == ("Mira.", ["sure?", None])
    shown = re.fullmatch(r'<img src="data:image/jpeg;base64,([^"]+)" alt="user upload image" />who\?', first)
    assert shown, "the canned messages are not shown, the picture is"
    with Image.open(BytesIO(base64.b64decode(shown[1]))) as image:
        assert (image.format, image.size) == ("JPEG", (8, 4))
