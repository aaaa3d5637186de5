//! Stage 5: read the request exactly. Strict admission, then hyper serves HTTP/1 and HTTP/2.
