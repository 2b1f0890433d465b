"""Result folders in, figures, tables and one self-contained report out; reads files only."""

import pandas as pd

# With pyarrow beside it pandas keeps strings in Arrow, where adding them to objects and indexing by them differ.
pd.set_option("mode.string_storage", "python")
