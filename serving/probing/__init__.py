"""Questions with known answers, and the verdict on a server that answers them."""
