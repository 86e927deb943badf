"""The network, its bundle, and prediction. torch; no Ray, no pyarrow."""
