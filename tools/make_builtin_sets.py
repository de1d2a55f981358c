"""Write the built-in sets `tags`, `answers`, `similarity` and `retrieval` to calibration/.

    python tools/make_builtin_sets.py

Each row is one of the sentences below with words put in, all of them written for this project (Apache-2.0). Half of the
rows calibrate; the other half, with other sentences or other names, judges. The same program writes the same bytes.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import islice, product
from pathlib import Path
from random import Random
from typing import Any

ROWS = 160  # of each half, at most
FIRST = "Ada Bruno Clara Dmitri Elena Farid Greta Hugo Ines Jonas "
FIRST += "Kamala Lucas Mira Nadia Oscar Priya Quentin Rosa Samuel Tove"
LAST = "Abbott Bergström Castillo Dubois Eriksen Fontaine Grimaldi "
LAST += "Hassan Ibarra Jensen Kowalski Lindqvist Moreau Novak Okafor"
PLACES = "Lisbon|Oslo|New Delhi|Cape Town|Lyon|Kyoto|Buenos Aires|Tallinn|"
PLACES += "Cork|San Marino|Zagreb|Port Louis|Ghent|Hanoi|Quito|Bergen"
FIRMS = "Northwind Foods|Halden Bank|Brightwater|Meridian Rail|"
FIRMS += "Castle & Sons|Solvik|Pine Street Press|Arden University|Vela Motors"
FIRMS += "|Red Lantern|Bluebird Airways|the Harbour Council|Tern Energy|Oakfield Hospital"
TAGGED = (
    "{PER} moved from {LOC} to {LOC} last spring .",
    "The head of {ORG} , {PER} , will speak in {LOC} on Monday .",
    "{ORG} has bought a warehouse near {LOC} .",
    "Nobody at {ORG} had heard of {PER} before the interview .",
    "We met {PER} and {PER} at the station in {LOC} .",
    "{LOC} is three hours by train from {LOC} .",
    "According to {PER} , {ORG} will close its shop in {LOC} .",
    "The rain did not stop until the evening .",
    "{ORG} and {ORG} have signed a contract for ten years .",
    "My neighbour {PER} used to work for {ORG} .",
    "Tickets to {LOC} cost twice as much in summer .",
    "In a letter to {ORG} , {PER} asked for a refund .",
    "She wrote her second book while living in {LOC} .",
    '" We are staying in {LOC} , " said {PER} .',
    "The old bridge was repaired by {ORG} in two weeks .",
    "{PER} , born in {LOC} , plays the cello .",
)
TRADES = (
    ("bakery", "rye bread", "the flour comes from a mill by the river"),
    ("bookshop", "travel guides", "the shelves were built from old ship planks"),
    ("bicycle workshop", "repaired wheels", "customers may use the tools on Fridays"),
    ("tea house", "smoked black tea", "the cups are made by a potter next door"),
    ("print studio", "posters", "the press is older than the building"),
    ("flower stall", "dried lavender", "it closes when the market does"),
    ("pottery", "blue bowls", "the kiln is fired once a week"),
    ("music school", "violin lessons", "children pay half the price"),
    ("garden nursery", "apple trees", "each tree is labelled by hand"),
    ("cinema", "silent films", "a pianist plays on Sundays"),
)
SCENES = (
    (
        "{who} is slicing {what} in the kitchen",
        "In the kitchen, {who} cuts {what} into slices",
        "{who} is washing {what} in the kitchen",
    ),
    (
        "{who} is carrying {what} up the stairs",
        "{who} takes {what} upstairs",
        "{who} is carrying {what} down the stairs",
    ),
    (
        "{who} bought {what} at the market this morning",
        "This morning {who} got {what} from the market",
        "{who} sold {what} at the market this morning",
    ),
    ("{who} forgot {what} on the bus", "{who} left {what} behind on the bus", "{who} found {what} on the bus"),
    ("{who} is painting a picture of {what}", "{who} paints {what}", "{who} is taking a photograph of {what}"),
    (
        "{who} wrapped {what} in brown paper",
        "{who} put brown paper around {what}",
        "{who} took {what} out of brown paper",
    ),
)
PEOPLE = ("a man", "a woman", "the old teacher", "a boy in a red coat", "our neighbour", "the young cook")
THINGS = (
    "a loaf of bread",
    "two melons",
    "a basket of onions",
    "a wooden chair",
    "an umbrella",
    "a birthday cake",
    "three fish",
)
OTHERS = (
    "Interest rates fell for the second month in a row",
    "The telescope sends its pictures home at night",
    "Ferries do not leave the harbour in such wind",
    "The committee will vote on the new library in May",
    "Snow closed the pass for most of the winter",
    "The orchestra tuned its instruments behind the curtain",
)
SUBJECTS = (
    ("a wool sweater", "dry it flat on a towel, since wool that hangs while wet grows longer"),
    ("a cast-iron pan", "wipe it with oil while it is warm, and never leave it in water"),
    ("leather boots", "let them dry away from the heater and rub them with wax"),
    ("a wooden chopping board", "scrub it with salt and half a lemon, then stand it on its edge"),
    ("a bicycle chain", "brush off the dirt, then put one drop of oil on each link"),
    ("a coffee grinder", "grind a spoonful of dry rice and brush out the powder"),
    ("houseplants in winter", "water them less, and move them nearer to the window"),
    ("sourdough", "feed it with flour and water at the same hour every day"),
    ("a fountain pen", "rinse the nib in cold water until no colour comes out"),
    ("window blinds", "close them and wipe each slat from the middle outwards"),
    ("a tent", "pitch it at home after the trip, so that every seam dries"),
    ("a cracked flowerpot", "glue it from inside and bind it with wire for a day"),
    ("silver spoons", "lay them on foil in hot water with a little soda"),
    ("a down pillow", "shake it daily and air it in the shade once a month"),
    ("garden shears", "sharpen them on one side only and store them dry"),
    ("a violin", "loosen the bow after playing and keep the case closed"),
)
ASKED = (
    "how to look after {}",
    "what is the best way to care for {}",
    "my grandmother's trick for {}",
    "mistakes to avoid with {}",
    "{} advice for beginners",
    "what should I do with {} before a long journey",
    "is it worth having {} repaired",
    "quick weekly routine for {}",
    "{} when there are children at home",
    "cheap tools for {}",
)
REPLIES = (
    "To look after {0}: {1}.",
    "Whoever wants to care for {0} does best to remember one thing: {1}.",
    "My grandmother had a simple trick for {0}. She said: {1}.",
    "Most mistakes with {0} come from haste. Instead, {1}.",
    "Beginners who have {0} for the first time should know this: {1}.",
    "Before a long journey there is little to do about {0}: {1}, and pack it last.",
    "Repairs of {0} pay only when the damage is small. Otherwise prevent it: {1}.",
    "A weekly routine for {0} takes five minutes: {1}.",
    "With children at home, keep {0} out of reach, and {1}.",
    "Expensive tools are no help with {0}; {1}, and that costs next to nothing.",
)


def main() -> None:
    """Write all sets."""
    folder = Path(__file__).parents[1] / "calibration"
    for name, rows in (("tags", tags), ("answers", answers), ("similarity", similarity), ("retrieval", retrieval)):
        lines: list[dict[str, Any]] = []
        seen: set[str] = set()
        for split, half in (("calibration", 0), ("evaluation", 1)):
            lines += [{"split": split, **row} for row in islice(distinct(rows(half), seen), ROWS)]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def distinct(rows: Iterator[dict[str, Any]], seen: set[str]) -> Iterator[dict[str, Any]]:
    """The rows that are not in `seen`, which takes them in."""
    for row in rows:
        key = json.dumps(row)
        if key not in seen:
            seen.add(key)
            yield row


def halves(words: Sequence[str], half: int) -> list[str]:
    """Every second word, from the first or the second on."""
    return list(words[half::2])


def tags(half: int) -> Iterator[dict[str, Any]]:
    """Sentences with names of people, places and organizations; the halves share no name."""
    random = Random(half)
    people = [f"{a} {b}" for a, b in product(halves(FIRST.split(), half), halves(LAST.split(), half))]
    names = {"PER": people, "LOC": halves(PLACES.split("|"), half), "ORG": halves(FIRMS.split("|"), half)}
    while True:
        words: list[str] = []
        marks: list[str] = []
        for word in random.choice(TAGGED).split():
            kind = word.strip("{}") if word.startswith("{") else ""
            parts = random.choice(names[kind]).split() if kind else [word]
            words += parts
            marks += [f"{'I' if place else 'B'}-{kind}" if kind else "O" for place in range(len(parts))]
        yield {"tokens": words, "tags": marks}


def answers(half: int) -> Iterator[dict[str, Any]]:
    """Questions on short passages about shops; every fourth has no answer in its passage."""
    random = Random(half + 10)
    firsts, lasts, places = (halves(words, half) for words in (FIRST.split(), LAST.split(), PLACES.split("|")))
    while True:
        who, where = f"{random.choice(firsts)} {random.choice(lasts)}", random.choice(places)
        trade, sells, note = random.choice(TRADES)
        year = str(random.randrange(1950, 2020))
        context = random.choice(
            (
                f"{who} opened a {trade} in {where} in {year}. It is best known for {sells}, and {note}.",
                f"The {trade} in {where} is known for {sells}. It was opened in {year} by {who}; {note}.",
                f"In {year}, {who} left a job in an office and opened a {trade} in {where}. There, {note}. "
                f"People come from far away for {sells}.",
            )
        )
        asked = [
            (f"Who opened the {trade}?", [who]),
            (f"In which year was the {trade} opened?", [year]),
            (f"In which town is the {trade}?", [where]),
            (f"What is the {trade} known for?", [sells]),
            (
                random.choice(
                    (f"What does {who} drive?", f"How many people work in the {trade}?", "Who owns the house?")
                ),
                [],
            ),
        ]
        question, right = random.choice(asked)
        yield {"question": question, "context": context, "answers": right}


def similarity(half: int) -> Iterator[dict[str, Any]]:
    """Pairs of sentences, from 5, the same meaning, to 0, nothing in common."""
    random = Random(half + 20)
    scenes = list(product(SCENES, PEOPLE, THINGS))[half::2]
    while True:
        (one, same, other), who, what = random.choice(scenes)
        someone = random.choice([each for each in PEOPLE if each != who])
        something = random.choice([each for each in THINGS if each != what])
        first = one.format(who=who, what=what)
        second, score = random.choice(
            (
                (same.format(who=who, what=what), 5.0),
                (same.format(who=someone, what=what), 3.6),
                (one.format(who=who, what=something), 3.0),
                (other.format(who=who, what=what), 2.4),
                (other.format(who=someone, what=something), 1.2),
                (random.choice(OTHERS), 0.0),
            )
        )
        yield {"sentence1": sentence(first), "sentence2": sentence(second), "score": score}


def retrieval(half: int) -> Iterator[dict[str, Any]]:
    """Queries with the passage that answers each."""
    for subject, (ask, reply) in list(product(SUBJECTS, zip(ASKED, REPLIES, strict=True)))[half::2]:
        yield {"query": ask.format(subject[0]), "passage": reply.format(*subject)}


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


if __name__ == "__main__":
    main()
