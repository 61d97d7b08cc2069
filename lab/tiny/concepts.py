"""The concepts that the tiny models' images show, and the npm packages with drawings of them.

Each concept is a concrete English noun. Four of the six icon packages index their drawings by
Unicode code point. Drawings of EmojiOne are found by the name that another package has for the code
point. Firefox OS Emoji uses its own names, which are listed here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """One npm package of drawings.

    Attributes:
        artist: Short name used throughout the library.
        npm: Name of the package.
        version: Exact version.
        credit: Author to credit.
        licence: SPDX identifier.
        source: Origin of the drawings.
    """

    artist: str
    npm: str
    version: str
    credit: str
    licence: str
    source: str

    @property
    def folder(self) -> str:
        """Name of the unpacked folder, `iconify-json-<set>-<version>`."""
        return f"{self.npm.removeprefix('@').replace('/', '-')}-{self.version}"


PACKAGES = (
    Package(
        "noto",
        "@iconify-json/noto",
        "1.2.9",
        "Noto Emoji, Google Inc",
        "Apache-2.0",
        "https://github.com/googlefonts/noto-emoji",
    ),
    Package(
        "twemoji",
        "@iconify-json/twemoji",
        "1.2.5",
        "Twitter Emoji (Twemoji), Twitter and contributors",
        "CC-BY-4.0",
        "https://github.com/jdecked/twemoji",
    ),
    Package(
        "fluent",
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "Fluent Emoji Flat, Microsoft Corporation",
        "MIT",
        "https://github.com/microsoft/fluentui-emoji",
    ),
    Package(
        "emojione",
        "@iconify-json/emojione",
        "1.2.3",
        "Emoji One 2.3 (Colored), Emoji One and EmojiTwo",
        "CC-BY-4.0",
        "https://github.com/EmojiTwo/emojitwo",
    ),
    Package(
        "fxemoji",
        "@iconify-json/fxemoji",
        "1.2.2",
        "Firefox OS Emoji, Mozilla",
        "Apache-2.0",
        "https://github.com/mozilla/fxemoji",
    ),
)
HELD_OUT = Package(
    "openmoji",
    "@iconify-json/openmoji",
    "1.2.29",
    "OpenMoji, HfG Schwäbisch Gmünd",
    "CC-BY-SA-4.0",
    "https://github.com/hfg-gmuend/openmoji",
)
"""The artist of the harder test, neither used in training nor shipped."""

# Word, code point, name in Firefox OS Emoji ("-" if it has no such drawing).
_TABLE = """
cat 1f431 cat
dog 1f436 dog
rabbit 1f430 bunny
fox 1f98a -
bear 1f43b bear
panda 1f43c pandaface
lion 1f981 -
tiger 1f42f tiger
cow 1f42e cowface
pig 1f437 pig
frog 1f438 frog
monkey 1f435 monkeyface
penguin 1f427 penguin
owl 1f989 -
bee 1f41d honeybee
butterfly 1f98b -
snail 1f40c snail
ladybug 1f41e ladybeetle
turtle 1f422 turtle
octopus 1f419 octopus
crab 1f980 -
fish 1f41f fish
whale 1f433 spurtingwhale
elephant 1f418 elephant
unicorn 1f984 -
spider 1f577 spider
apple 1f34e redapple
lemon 1f34b lemon
banana 1f34c banana
watermelon 1f349 watermelon
grapes 1f347 grapes
strawberry 1f353 strawberry
cherry 1f352 cherries
pineapple 1f34d pineapple
tomato 1f345 tomato
eggplant 1f346 aubergine
corn 1f33d earofmaize
carrot 1f955 -
mushroom 1f344 mushroom
cheese 1f9c0 -
burger 1f354 hamburger
fries 1f35f frenchfries
pizza 1f355 sliceofpizza
donut 1f369 doughnut
cake 1f370 shortcake
lollipop 1f36d lollipop
coffee 2615 hotbeverage
avocado 1f951 -
tree 1f333 deciduoustree
cactus 1f335 cactus
rose 1f339 rose
sunflower 1f33b sunflower
clover 1f340 fourleafclover
cloud 2601 cloud
rainbow 1f308 rainbow
moon 1f319 crescentmoon
star 2b50 whitemediumstar
fire 1f525 fire
snowflake 2744 snowflake
car 1f697 automobile
bus 1f68c bus
tractor 1f69c tractor
bicycle 1f6b2 bicycle
rocket 1f680 rocket
boat 26f5 sailboat
anchor 2693 anchor
house 1f3e0 housebuilding
castle 1f3f0 europeancastle
clock 23f0 alarmclock
phone 1f4f1 cellphone
camera 1f4f7 camera
key 1f511 key
lock 1f512 lock
hammer 1f528 hammer
scissors 2702 blackscissors
pencil 270f pencil
book 1f4d5 closedbook
gift 1f381 present
balloon 1f388 balloon
umbrella 2614 umbrellawithraindrops
glasses 1f453 glasses
shirt 1f455 mansshirt
dress 1f457 dress
hat 1f3a9 tophat
crown 1f451 crown
guitar 1f3b8 guitar
trumpet 1f3ba trumpet
drum 1f941 -
bell 1f514 bell
battery 1f50b battery
bulb 1f4a1 lightbulb
door 1f6aa door
trophy 1f3c6 trophy
ghost 1f47b ghost
alien 1f47d alien
skull 1f480 skull
pumpkin 1f383 jackolantern
heart 2764 redheart
football 26bd soccerball
basketball 1f3c0 basketballandhoop
"""


@dataclass(frozen=True)
class Concept:
    """One noun and the keys under which the packages hold its drawings."""

    name: str
    code_point: str
    fxemoji: str | None


def _read_table(table: str) -> tuple[Concept, ...]:
    rows = [line.split() for line in table.strip().splitlines()]
    return tuple(Concept(name, code, None if fx == "-" else fx) for name, code, fx in rows)


CONCEPTS = _read_table(_TABLE)
"""All concepts, in the order of the atlas rows."""
