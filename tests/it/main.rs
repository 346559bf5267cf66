//! One integration binary: a file per behaviour area, over real sockets.
