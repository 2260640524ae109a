"""Makes the shipped list of object names out of WordNet's nouns.

    python tools/object_names.py /usr/share/wordnet [--candidates]

The folder is that of Debian's package wordnet-base (WordNet 3.0: data.noun, index.noun, cntlist.rev). The
list is what is common enough (`COMMON`) below the synsets of `CATEGORIES`, less `object_names_excluded.txt`
(read by eye, a reason for each), and what `object_names_added.txt` names: WordNet's nouns too, common things
that its counts, made from a few old texts, miss. `--candidates` prints what the counts alone give.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "src" / "jedi_diffusion" / "synthesis" / "object_names.tsv"
COMMON = 8
"""Least score of a candidate: 3 x its count in tagged texts + how often WordNet's own definitions use it."""
SENSE = re.compile(r"^(?P<lemma>[^#]+)#(?P<number>\d+)$")

# The first line that holds one of a synset's ancestors gives its category. "+" admits candidates by count,
# "-" only what was added by hand: most of what WordNet has there is no single thing that can be photographed.
CATEGORIES = """
+ canine: canine#2
+ feline: feline#1
+ hoofed mammal: ungulate#1
+ primate: primate#2
+ rodent: rodent#1
+ sea mammal: aquatic_mammal#1 seal#9
+ mammal: mammal#1
+ bird: bird#1
+ reptile: reptile#1
+ amphibian: amphibian#3
+ fish: fish#1
+ sea creature: crustacean#1 mollusk#1 echinoderm#1 coelenterate#1
+ insect or spider: arthropod#1
- animal: animal#1
+ aircraft: aircraft#1
+ watercraft: vessel#2 boat#1
+ vehicle: vehicle#1 public_transport#1
+ musical instrument: musical_instrument#1
+ lamp: lamp#1 lamp#2 light_source#1 candle#1
+ furniture: furniture#1
+ appliance: kitchen_appliance#1 home_appliance#1 white_goods#1
+ kitchenware: kitchen_utensil#1 cookware#1 cooking_utensil#1 tableware#1 crockery#1 glass#2 cutlery#2 \
    eating_utensil#1 pitcher#2 drinking_vessel#1 pot#1
+ timepiece: timepiece#1
+ camera or optics: camera#1 optical_instrument#1 photographic_equipment#1
+ electronics: computer#1 electronic_equipment#1 electronic_device#1 peripheral#1 telephone#1
+ instrument: measuring_instrument#1 medical_instrument#1 scientific_instrument#1 navigational_instrument#1
+ writing or office: writing_implement#1 stationery#1
+ toy or game: plaything#1 game_equipment#1 doll#1 toy#1
+ sports equipment: sports_equipment#1 sports_implement#1 ski#1
+ weapon or armor: weapon#1
+ tool: tool#1 edge_tool#1 cleaning_implement#1 garden_tool#1
+ headwear: headdress#1 helmet#2
+ footwear: footwear#1 footwear#2
+ bag: bag#1 bag#4 baggage#1
+ jewelry: jewelry#1 adornment#1
+ clothing: clothing#1
- household item: bedclothes#1 floor_cover#1 furnishing#2 linen#3 curtain#1 rug#1
+ container: container#1
+ machine: machine#1
- fastener: fastener#2
+ artwork: sculpture#1 statue#1
- decoration: decoration#1
- structure: structure#1
- device: device#1 implement#1 equipment#1 instrumentality#3
- artifact: artifact#1
+ fruit: edible_fruit#1
+ vegetable: vegetable#1
+ baked food: baked_goods#1
- food: food#1 food#2
- tree: tree#1
- flower: flower#1
- fungus: fungus#1
- plant: plant#2
- natural object: natural_object#1 object#1 matter#3
"""


@dataclass(frozen=True)
class Synset:
    """One meaning: its words and the offsets of the meanings above it."""

    words: tuple[str, ...]
    above: tuple[str, ...]
    is_instance: bool


@dataclass
class Nouns:
    """Synsets by offset, offsets of every lemma in order of its senses, counts in texts and in glosses."""

    synsets: dict[str, Synset] = field(default_factory=dict)
    senses: dict[str, list[str]] = field(default_factory=dict)
    tagged: dict[str, int] = field(default_factory=dict)
    defining: Counter[str] = field(default_factory=Counter)

    def offset(self, name: str) -> str:
        """Return the synset of "lemma#number", or of a lemma's first sense."""
        match = SENSE.match(name)
        lemma, number = (match["lemma"], int(match["number"])) if match else (name, 1)
        try:
            return self.senses[lemma.lower()][number - 1]
        except (KeyError, IndexError):
            raise SystemExit(f"{name} is no noun of WordNet.") from None

    def score(self, lemma: str) -> int:
        return 3 * self.tagged.get(lemma, 0) + self.defining[lemma]

    def ancestors(self, offset: str) -> set[str]:
        """Return the synset and everything above it."""
        found, waiting = set(), [offset]
        while waiting:
            here = waiting.pop()
            if here not in found:
                found.add(here)
                waiting.extend(self.synsets[here].above)
        return found


def read_nouns(folder: Path) -> Nouns:
    """Return the noun files of a WordNet folder, in the format of wndb(5WN) and cntlist(5WN)."""
    nouns = Nouns()
    for line in entries(folder / "data.noun"):
        head, _, gloss = line.partition("|")
        fields = head.split()
        last = 4 + 2 * int(fields[3], 16)
        pointers = fields[last + 1 : last + 1 + 4 * int(fields[last])]
        kinds = list(zip(pointers[::4], pointers[1::4], strict=True))
        above = tuple(offset for kind, offset in kinds if kind == "@")
        nouns.synsets[fields[0]] = Synset(tuple(fields[4:last:2]), above, any(k == "@i" for k, _ in kinds))
        nouns.defining.update(phrases(gloss))
    for line in entries(folder / "index.noun"):
        fields = line.split()
        nouns.senses[fields[0]] = fields[4 + int(fields[3]) + 2 :]
    for line in entries(folder / "cntlist.rev"):
        key, number, count = line.split()
        lemma, _, rest = key.partition("%")
        if rest[0] == "1" and number == "1":
            nouns.tagged[lemma] = int(count)
    return nouns


def entries(path: Path) -> Iterator[str]:
    """Lines of a database file without the licence at its head, which is indented."""
    with open(path, encoding="utf-8") as file:
        yield from (line for line in file if not line.startswith("  "))


def phrases(gloss: str) -> Iterator[str]:
    """Every run of one to three words, written as a lemma."""
    words = re.findall(r"[a-z]+(?:-[a-z]+)*", gloss.lower())
    for length in (1, 2, 3):
        for start in range(len(words) - length + 1):
            yield "_".join(words[start : start + length])


class Categories:
    """Which category a synset has, by its ancestors."""

    def __init__(self, nouns: Nouns) -> None:
        self.nouns = nouns
        lines = [line for line in CATEGORIES.replace("\\\n", "").splitlines() if line]
        heads = [line.partition(":") for line in lines]
        self.table = [
            (name[2:], name[0] == "+", {nouns.offset(root) for root in roots.split()})
            for name, _, roots in heads
        ]
        self.things, self.people = {nouns.offset("physical_entity")}, {nouns.offset("person")}

    def sense(self, name: str, category: str) -> str | None:
        """Return the first sense of `name` in `category`, or else the first thing that is no person, or
        None.
        """
        if SENSE.match(name):
            return self.nouns.offset(name)
        roots = next((roots for head, _, roots in self.table if head == category), None)
        if roots is None:
            raise SystemExit(f"There is no category {category!r}.")
        senses = self.nouns.senses.get(name.lower(), [])
        above = {offset: self.nouns.ancestors(offset) for offset in senses}
        inside = [offset for offset in senses if roots & above[offset]]
        things = [offset for offset in senses if self.things & above[offset]]
        return next((offset for offset in inside + things if not self.people & above[offset]), None)

    def find(self, offset: str) -> tuple[str, bool] | None:
        """(category, whether candidates are taken by count), None outside of all categories."""
        above = self.nouns.ancestors(offset)
        return next(((name, counted) for name, counted, roots in self.table if roots & above), None)


def candidates(nouns: Nouns, categories: Categories) -> Iterator[tuple[str, str]]:
    """(lemma, category) of what is common enough: each synset's commonest word, in the word's first sense."""
    for offset, synset in nouns.synsets.items():
        first = [
            word
            for word in synset.words
            if re.fullmatch(r"[a-z_-]+", word) and nouns.senses[word][0] == offset
        ]
        best = max(first, key=nouns.score, default=None)
        if best is None or synset.is_instance or nouns.score(best) < COMMON:
            continue
        found = categories.find(offset)
        if found and found[1]:
            yield best, found[0]


def listed(path: Path) -> list[tuple[str, str]]:
    """(name, heading) of a hand-made list: names between commas under headings in square brackets."""
    heading, found = "", []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            heading = line.strip("[]")
        elif not line.startswith("#"):
            found += [(part.strip().replace(" ", "_"), heading) for part in line.split(",") if part.strip()]
    return found


def chosen(nouns: Nouns, categories: Categories) -> dict[str, str]:
    """Category by name. Exits where the hand-made lists contradict WordNet, the counts or each other."""
    names = dict(candidates(nouns, categories))
    faults, dropped = [], set()
    for name, _ in listed(HERE / "object_names_excluded.txt"):
        if names.pop(name, None) is None:
            faults.append(f"{name}: excluded twice, or no candidate")
        dropped.add((name, nouns.offset(name)))
    taken = {nouns.senses[name][0]: name for name in names}
    for entry, category in listed(HERE / "object_names_added.txt"):
        offset, name = categories.sense(entry, category), entry.partition("#")[0]
        if offset is None:
            faults.append(f"{name}: no physical thing in WordNet")
        elif name not in nouns.synsets[offset].words:
            faults.append(f"{name}: written {' or '.join(nouns.synsets[offset].words)} by WordNet")
        elif (name, offset) in dropped:
            faults.append(f"{name}: both excluded and added")
        elif name in names or offset in taken:
            faults.append(f"{name} ({category}): there already, as {taken.get(offset, name)}")
        else:
            names[name], taken[offset] = category, name
    if faults:
        raise SystemExit("\n".join(faults))
    return names


def main(arguments: list[str]) -> None:
    """Write the list, or print the candidates by category."""
    nouns = read_nouns(Path(arguments[0]))
    categories = Categories(nouns)
    if "--candidates" in arguments:
        by_category: dict[str, list[str]] = {}
        for name, category in candidates(nouns, categories):
            by_category.setdefault(category, []).append(name)
        for category, names in by_category.items():
            print(f"{category}: {', '.join(sorted(names))}")
        return
    rows = sorted((category, name.replace("_", " ")) for name, category in chosen(nouns, categories).items())
    TARGET.write_text("".join(f"{name}\t{category}\n" for category, name in rows), encoding="utf-8")
    print(f"{len(rows)} names in {len({category for category, _ in rows})} categories: {TARGET}")


if __name__ == "__main__":
    main(sys.argv[1:])
