"""The original's class names, and that asking for them is what loads torch."""

import subprocess
import sys

import pytest

import llava
import llava.model
from llava.model.config import LlavaConfig
from llava.model.llava import LlavaForCausalLM


@pytest.mark.parametrize("name", ["LlavaLlamaForCausalLM", "LlavaMistralForCausalLM"])
def test_models_are_our_one_class(name: str) -> None:
    assert getattr(llava.model, name) is LlavaForCausalLM


def test_configurations_too() -> None:
    assert llava.model.LlavaConfig is llava.model.LlavaMistralConfig is LlavaConfig


def test_the_package_itself_names_the_model() -> None:
    assert llava.LlavaLlamaForCausalLM is LlavaForCausalLM


def test_the_originals_modules_can_be_imported() -> None:
    from llava.model.language_model import llava_llama, llava_mistral

    assert llava_llama.LlavaLlamaForCausalLM is llava_mistral.LlavaMistralForCausalLM is LlavaForCausalLM
    assert llava_llama.LlavaConfig is llava_mistral.LlavaMistralConfig is LlavaConfig


def test_other_names_are_errors() -> None:
    with pytest.raises(AttributeError, match="LlavaMptForCausalLM"):
        _ = llava.model.LlavaMptForCausalLM
    with pytest.raises(ImportError):
        from llava import LlavaMptForCausalLM  # noqa: F401


def test_importing_the_packages_does_not_load_torch() -> None:
    code = "import sys, llava, llava.model; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
