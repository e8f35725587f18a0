"""The look that Gradio's own components take: system fonts, warm white, thin lines, one accent.

What this project draws itself is styled by ui/look/style.css, which uses the same colours as variables.
"""

from pathlib import Path

import gradio as gr

STYLE_SHEET = Path(__file__).resolve().with_name("style.css")

_LIGHT = {
    "bg": "#fbfaf7", "card": "#ffffff", "ink": "#1d2125", "dim": "#666d78", "line": "#e5e2da",
    "accent": "#2f5d8a", "hover": "#264d73",
}  # fmt: skip
_DARK = {
    "bg": "#14161a", "card": "#1c1f25", "ink": "#e8e6e1", "dim": "#9aa1ac", "line": "#2c3038",
    "accent": "#8db9e6", "hover": "#a6c9ee",
}  # fmt: skip

# Theme variable -> colour name.
_VARIABLES = {
    "body_background_fill": "bg", "body_text_color": "ink", "body_text_color_subdued": "dim",
    "background_fill_primary": "card", "background_fill_secondary": "bg", "block_background_fill": "card",
    "border_color_primary": "line", "border_color_accent": "accent", "block_border_color": "line",
    "panel_background_fill": "bg", "panel_border_color": "line",
    "slider_color": "accent", "color_accent_soft": "bg", "link_text_color": "accent",
    "input_background_fill": "card", "input_background_fill_focus": "card", "input_border_color": "line",
    "input_border_color_focus": "accent", "input_placeholder_color": "dim",
    "button_primary_background_fill": "accent", "button_primary_background_fill_hover": "hover",
    "button_primary_border_color": "accent", "button_primary_border_color_hover": "hover",
    "button_primary_text_color": "bg", "button_primary_text_color_hover": "bg",
    "button_secondary_background_fill": "card", "button_secondary_background_fill_hover": "bg",
    "button_secondary_border_color": "line", "button_secondary_border_color_hover": "dim",
    "button_secondary_text_color": "ink", "button_secondary_text_color_hover": "ink",
}  # fmt: skip


def create_theme() -> gr.themes.Base:
    """A theme that loads nothing: its fonts are the reader's own."""
    theme = gr.themes.Base(
        font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace"), radius_size=gr.themes.sizes.radius_md
    )
    light = {name: _LIGHT[colour] for name, colour in _VARIABLES.items()}
    dark = {f"{name}_dark": _DARK[colour] for name, colour in _VARIABLES.items()}
    return theme.set(
        **light,
        **dark,
        block_border_width="0px",
        block_padding="0px",
        block_shadow="none",
        button_primary_shadow="none",
        button_secondary_shadow="none",
        input_shadow="none",
        input_shadow_focus="none",
        button_large_radius="8px",
        input_radius="8px",
        button_large_padding="6px 13px",
        button_large_text_weight="500",
        button_large_text_size="15px",
        input_text_size="15px",
        layout_gap="16px",
    )
