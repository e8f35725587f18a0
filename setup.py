"""Which files of the checkout an installation gets, and where: everything but switch_model into one package.

So no folder of a user's site-packages is named train or ui (see switch_explorer/__init__.py).
"""

from setuptools import find_packages, setup

INSIDE = "switch_explorer.inside"
inside = find_packages(include=["train", "train.*", "ui", "ui.*"])

setup(
    packages=[
        *find_packages(include=["switch_model", "switch_model.*", "switch_explorer"]),
        INSIDE,
        *(f"{INSIDE}.{name}" for name in inside),
    ],
    # The checkout itself: app.py, and the files named below.
    package_dir={INSIDE: "."},
    package_data={
        INSIDE: ["assets/models/**/*", "LICENSE", "README.md", "pyproject.toml", "requirements.txt"],
        "switch_model": ["grid/*.js", "grid/*.css"],
        f"{INSIDE}.ui": ["**/*.js", "**/*.css", "**/*.json", "**/*.html"],
        f"{INSIDE}.train": ["**/*.jinja", "**/*.html", "**/*.csv"],
    },
)
