"""Small inputs on which the library was once wrong: `python -m lab.cases` runs all of them."""
