"""Footprints without a meter: from what is known of a run to its energy, carbon and water.

`inputs` says what may be known, `quantities` what can be told, `formulas` how these follow from
those, `cases` compares them with published values. Numbers are exact (`Fraction`); carbon and
water are `core.footprint`'s, as in the books.
"""
