"""The cabinet of pretrained weights, as `radtransfer weights` opens it."""
