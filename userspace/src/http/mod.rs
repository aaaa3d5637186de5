//! Stage 5: read the request exactly. Strict admission, then hyper serves HTTP/1 and HTTP/2.

pub mod admission;
pub mod body;
pub mod chunked;
pub mod farewell;
pub mod head;
pub mod headers;
pub mod limits;
pub mod line;
pub mod patience;
pub mod refuse;
pub mod serve;
pub mod strict;
pub mod upgrade;
pub mod upload;
pub mod websocket; // over HTTP/2
