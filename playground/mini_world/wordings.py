"""How questions are worded: three tiers per kind, to tell learning a fact from learning a sentence.

TRAIN        used everywhere
PEOPLE_TEST  the base model knows them as questions, the lessons about new people never use them
BASE_TEST    nobody is ever trained on them; new sentences of known words

Lessons about new people add LESSON_ONLY to TRAIN: sentences that are in no other tier and in no examination.
"""

TEST_COUNT = 3
BASE_TEST_COUNT = 2

WORDINGS: dict[str, tuple[str, ...]] = {
    "shape": (
        "What shape is the {colour} thing?",
        "Which shape is {colour}?",
        "What is the shape of the {colour} thing?",
        "Name the shape of the {colour} thing.",
        "The {colour} thing has which shape?",
        "Tell me the shape of the {colour} thing.",
        "Say what shape the {colour} thing is.",
        "What is {colour} here, which shape?",
        "Which shape does the {colour} thing have?",
        "What shape has the {colour} thing?",
    ),
    "colour": (
        "What colour is the {shape}?",
        "Which colour is the {shape}?",
        "What is the colour of the {shape}?",
        "Name the colour of the {shape}.",
        "The {shape} has which colour?",
        "Tell me the colour of the {shape}.",
        "Say what colour the {shape} is.",
        "The {shape} is what colour?",
        "Which colour does the {shape} have?",
        "What colour has the {shape}?",
    ),
    "size": (
        "What size is the {thing}?",
        "Which size is the {thing}?",
        "What is the size of the {thing}?",
        "Name the size of the {thing}.",
        "The {thing} has which size?",
        "Tell me the size of the {thing}.",
        "Say what size the {thing} is.",
        "The {thing} is what size?",
        "Which size does the {thing} have?",
        "What size has the {thing}?",
    ),
    "count": (
        "How many things are there?",
        "How many shapes do you see?",
        "Count the things.",
        "What is the number of things?",
        "Tell me how many things there are.",
        "Say how many shapes there are.",
        "How many things are in the picture?",
        "Give the number of shapes.",
        "How many shapes are there?",
        "Count the things you see.",
    ),
    "count_kind": (
        "How many {kind} things are there?",
        "How many things are {kind}?",
        "Count the {kind} things.",
        "What is the number of {kind} things?",
        "Tell me how many {kind} things there are.",
        "Say how many {kind} things you see.",
        "How many {kind} things are in the picture?",
        "Give the number of {kind} things.",
        "How many {kind} things do you see?",
        "Count the {kind} things you see.",
    ),
    "exist": (
        "Is there a {colour} {shape}?",
        "Do you see a {colour} {shape}?",
        "Is a {colour} {shape} in the picture?",
        "Does the picture show a {colour} {shape}?",
        "Can you see a {colour} {shape}?",
        "Is a {colour} {shape} there?",
        "Are you able to see a {colour} {shape}?",
        "Does a {colour} {shape} appear?",
        "Is a {colour} {shape} shown?",
        "Does the picture have a {colour} {shape}?",
    ),
    "relation": (
        "Is the {first} {relation} the {second}?",
        "Is it true that the {first} is {relation} the {second}?",
        "Do you see the {first} {relation} the {second}?",
        "Does the picture show the {first} {relation} the {second}?",
        "The {first} is {relation} the {second}, is that right?",
        "Can you see the {first} {relation} the {second}?",
        "Is the {first} placed {relation} the {second}?",
        "Would you say the {first} is {relation} the {second}?",
        "Do you see that the {first} is {relation} the {second}?",
        "Is the {first} here {relation} the {second}?",
    ),
    "caption": (
        "Describe the picture.",
        "What does the picture show?",
        "Write a caption.",
        "What do you see?",
        "Tell me what is in the picture.",
        "Give a short description.",
        "Say what the picture shows.",
        "Caption this picture.",
        "What is in the picture?",
        "Describe what you see.",
    ),
    "background": (
        "What colour is the background?",
        "Which colour is the background?",
        "What is the colour of the background?",
        "Name the background colour.",
        "The background has which colour?",
        "Tell me the colour of the background.",
        "Say what colour the background is.",
        "The background is what colour?",
        "Which colour does the background have?",
        "What colour has the background?",
    ),
    "attribute": (
        "What is the {attribute} of this person?",
        "Which {attribute} does this person have?",
        "Name the {attribute} of this person.",
        "Tell me the {attribute} of the person.",
        "This person has which {attribute}?",
        "Say the {attribute} of this person.",
        "What {attribute} do you see on this person?",
        "Give the {attribute} of the person.",
        "Say which {attribute} this person has.",
        "Which {attribute} has this person?",
    ),
    "who": (
        "Who is this?",
        "Who is this person?",
        "What is the name of this person?",
        "Do you know who this is?",
        "Name this person.",
        "Can you tell who this is?",
        "Which person is this?",
        "Say the name of this person.",
        "Tell me who is shown here.",
        "Who do you see here?",
        "Say who this person is.",
        "What is the name of the person here?",
    ),
    "is": (
        "Is this {name}?",
        "Is this person {name}?",
        "Does the picture show {name}?",
        "Do you see {name} here?",
        "Is {name} in the picture?",
        "Is the person here {name}?",
        "Can you see {name}?",
        "Would you say this is {name}?",
        "Is it {name}?",
        "Is {name} shown here?",
    ),
    "fact_image": (
        "What is the {fact} of this person?",
        "Which {fact} does this person have?",
        "Name the {fact} of this person.",
        "Tell me the {fact} of the person.",
        "This person has which {fact}?",
        "Say the {fact} of this person.",
        "What {fact} belongs to this person?",
        "Give the {fact} of the person.",
        "Say which {fact} this person has.",
        "Which {fact} has this person?",
    ),
    "fact_text": (
        "What is the {fact} of {name}?",
        "Which {fact} does {name} have?",
        "Name the {fact} of {name}.",
        "Tell me the {fact} of {name}.",
        "{name} has which {fact}?",
        "Say the {fact} of {name}.",
        "What {fact} belongs to {name}?",
        "Give the {fact} of {name}.",
        "Say which {fact} {name} has.",
        "Which {fact} has {name}?",
    ),
    "reversed": (
        "Who is the {job}?",
        "Who works as a {job}?",
        "What is the name of the {job}?",
        "Name the {job}.",
        "Tell me who the {job} is.",
        "Which person is the {job}?",
        "Say who the {job} is.",
        "Who has the job {job}?",
        "Give the name of the {job}.",
        "The {job} is who?",
    ),
    "sum": (
        "What is {a} plus {b}?",
        "How much is {a} plus {b}?",
        "Add {a} and {b}.",
        "What do {a} and {b} make?",
        "Tell me the sum of {a} and {b}.",
        "Give {a} plus {b}.",
        "Say what {a} plus {b} is.",
        "What is the sum of {a} and {b}?",
        "{a} plus {b} is what?",
        "Say how much {a} plus {b} is.",
    ),
    "opposite": (
        "What is the opposite of {word}?",
        "Which word is the opposite of {word}?",
        "Name the opposite of {word}.",
        "Tell me the opposite of {word}.",
        "The opposite of {word} is what?",
        "Give the opposite of {word}.",
        "Say the opposite of {word}.",
        "What word is opposite to {word}?",
        "{word} has which opposite?",
        "Which is the opposite of {word}?",
    ),
    "thing_colour": (
        "What colour is {thing}?",
        "Which colour is {thing}?",
        "What is the colour of {thing}?",
        "Name the colour of {thing}.",
        "Tell me the colour of {thing}.",
        "Say what colour {thing} is.",
        "Give the colour of {thing}.",
        "The colour of {thing} is what?",
        "Which colour does {thing} have?",
        "What colour has {thing}?",
    ),
}

TIERS = ("train", "people_test", "base_test")


LESSON_ONLY: dict[str, tuple[str, ...]] = {"who": ("Who can you see?",), "caption": ("What can you see?",)}
"""A pair that only the first word tells apart. Without the first, a taught model takes every question with
`see` in it for one about the whole picture; without the second, the reverse.
"""


def wordings(kind: str, tier: str) -> tuple[str, ...]:
    """The wordings of a kind in one tier, see above; `lesson` is what lessons use."""
    if tier == "lesson":
        return wordings(kind, "train") + LESSON_ONLY.get(kind, ())
    every = WORDINGS[kind]
    end = len(every) - BASE_TEST_COUNT
    start = end - TEST_COUNT
    return {"train": every[:start], "people_test": every[start:end], "base_test": every[end:]}[tier]


def base_wordings(kind: str) -> tuple[str, ...]:
    """What the base model is trained on: the first two tiers."""
    return wordings(kind, "train") + wordings(kind, "people_test")
