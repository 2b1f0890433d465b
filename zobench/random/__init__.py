"""Random numbers by name: keys, the streams that they name, and the native code that draws them."""
