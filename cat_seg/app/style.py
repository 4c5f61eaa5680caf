"""The look of the page. Fonts are the system's: nothing is loaded from elsewhere."""

from __future__ import annotations

import gradio as gr

_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")
_MONO = ("ui-monospace", "Consolas", "DejaVu Sans Mono", "monospace")


def theme() -> gr.themes.Base:
    """Return the colors, sizes and fonts of the page."""
    return gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", radius_size="md", font=_FONT, font_mono=_MONO
    ).set(
        body_background_fill="*neutral_50",
        block_shadow="none",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
    )


CSS = """
.gradio-container main { width: 100% !important; max-width: 1320px !important;
    margin: 0 auto !important; padding: 1rem 1.25rem 2rem !important; }
.gradio-container .html-container { padding: 0; }
.image-container, .slider-wrap, .wrap { background: transparent; }
.heading h1 { font-size: 1.6rem; margin: .2rem 0; }
.heading p { margin: 0; color: var(--body-text-color-subdued); }
.status { min-height: 1.5rem; padding: .4rem .1rem; color: var(--body-text-color-subdued); }
.status.error { color: #b91c1c; background: #fef2f2; border: 1px solid #fecaca;
    border-radius: 6px; padding: .5rem .75rem; overflow-wrap: anywhere; }
.status.busy::before { content: ""; display: inline-block; width: .8em; height: .8em;
    margin-right: .5em; border: 2px solid currentColor; border-right-color: transparent;
    border-radius: 50%; animation: turn 1s linear infinite; }
@keyframes turn { to { transform: rotate(360deg); } }
.empty { border: 2px dashed var(--border-color-primary); border-radius: 8px; padding: 5rem 2rem;
    text-align: center; color: var(--body-text-color-subdued); }
.empty b { display: block; font-size: 1.1rem; margin-bottom: .4rem; color: var(--body-text-color); }
.legend { max-height: 22rem; overflow-y: auto; }
.legend * { border: 0 !important; }
.legend table { width: 100%; border-collapse: collapse; font-size: .95rem; }
.legend th { text-align: left; font-weight: 500; color: var(--body-text-color-subdued); }
.legend th, .legend td { padding: .35rem .75rem .35rem 0;
    border-bottom: 1px solid var(--border-color-primary) !important; }
.legend th:last-child, .legend td:last-child { text-align: right; padding-right: 0; width: 6rem; }
.legend td:first-child { position: relative; padding-left: 1.6rem; overflow-wrap: anywhere; }
.legend td .chip { position: absolute; left: 0; top: .55rem; }
.legend .share { width: 45%; white-space: nowrap; }
.legend .bar { display: inline-block; width: calc(100% - 4rem); height: .6rem; margin-right: .6rem;
    border-radius: 3px; background: var(--border-color-primary); overflow: hidden; }
.legend .bar i { display: block; height: 100%; }
.legend b { font-weight: 500; }
@media (max-width: 600px) {
    .legend .bar { display: none; }
    .legend .share { width: auto !important; }
}
.chip { display: inline-block; width: 1em; height: 1em; margin-right: .5em; border-radius: 3px;
    vertical-align: -.12em; }
.pixel, .hint { padding: .4rem 0; min-height: 2.2rem; }
.hint, .pixel .where, .downloads span { color: var(--body-text-color-subdued); }
.pixel .where { white-space: nowrap; }
.downloads { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; padding: .5rem 0; }
.downloads a { padding: .4rem .8rem; border: 1px solid var(--border-color-primary);
    border-radius: 6px; background: var(--background-fill-primary); color: var(--body-text-color);
    text-decoration: none; }
.downloads a:hover { border-color: var(--color-accent); }
.scale { display: flex; align-items: center; gap: .6rem; padding: .4rem 0;
    color: var(--body-text-color-subdued); }
.scale i { flex: 1; height: .6rem; border-radius: 3px; background: linear-gradient(90deg,
    #440154, #3b528b, #21918c, #5ec962, #fde725); }
.dark .status.error { color: #fecaca; background: #450a0a; border-color: #7f1d1d; }
"""
