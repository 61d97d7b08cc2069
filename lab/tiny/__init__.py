"""The tiny Qwen2-VL that comes with the library: its drawings, its training, its figures."""
