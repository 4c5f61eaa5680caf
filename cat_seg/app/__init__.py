"""The browser page and HTTP endpoint of `hps-seg demo`; needs the extra "demo" (gradio)."""
