//! Stage 8: write it down, once. An append-only hash-chained journal is the truth; sled is the queryable copy.
