"""Text data: corpora, tokenizers, and the token store that combines them.

    corpus = open_corpus("python")                      # documents, in a fixed order
    tokenizer = load_tokenizer("bytes")
    store = open_store(corpus, tokenizer, context=512)  # built once, then memory-mapped
    rows = store.split("train")
    order = RowOrder(len(rows), seed=0)
    batch = rows.read(order.indices(0, 32))             # Samples: tokens and targets (32, 512)

Importing this imports neither torch, transformers nor datasets.
"""

from proctool.corpora.catalog import open_corpus
from proctool.corpora.documents import Corpus, Document
from proctool.corpora.order import RowOrder
from proctool.corpora.rows import Rows
from proctool.corpora.store import TokenStore, open_store
from proctool.corpora.subwords import load_tokenizer
from proctool.corpora.tokenizers import Tokenizer

__all__ = [
    "Corpus",
    "Document",
    "RowOrder",
    "Rows",
    "TokenStore",
    "Tokenizer",
    "load_tokenizer",
    "open_corpus",
    "open_store",
]
