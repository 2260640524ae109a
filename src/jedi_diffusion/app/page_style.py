"""How the page looks: its style sheet, and the settings that its galleries share."""

from __future__ import annotations

from typing import Any

CSS = """
.gradio-container { max-width: 80rem !important; margin: 0 auto; overflow: clip !important; }
gradio-app, .gradio-container, main.contain, .contain > .column { width: 100%; min-width: 0 !important; }
#about h1 { margin-bottom: 0.25rem; }
mark { color: inherit; background: #e5484d40; text-decoration: line-through; }
#words:not(:has(p)), #taken:not(:has(div[role])) { display: none; }
#words p { white-space: pre-line; margin: 0; }
#status { min-height: 2.5rem; }
#status progress { width: 100%; }
#photos .wrap, #recorded .wrap { flex-direction: row; gap: 0.5rem; min-height: 0; padding-top: 1.5rem; }
#photos .or, #recorded .or { color: inherit; }
#generate { background: var(--primary-600); }
#photos .icon-wrap, #recorded .icon-wrap { width: 1.5rem; margin: 0; }
/* Captions stand below their pictures rather than on them. */
.grid-wrap { min-height: 0 !important; max-height: none !important; padding-top: 2.25rem !important; }
.grid-container { grid-template-columns: repeat(auto-fill, minmax(var(--least), 1fr)) !important;
  grid-auto-rows: auto !important; height: auto !important; }
.gallery-item, .thumbnail-item { min-width: 0; height: auto !important; }
.thumbnail-lg { aspect-ratio: auto !important; }
.thumbnail-lg img { aspect-ratio: 1; width: 100%; height: auto !important; }
.caption-label { position: static !important; width: 100%; max-width: none !important;
  padding: 0.25rem !important; border: 0 !important; background: none !important; font-size: 0.8rem;
  text-align: center; white-space: normal !important; }
#examples { --least: 3rem; }
/* Out of sight, and still the pictures' names for screen readers. */
#examples .caption-label { position: absolute !important; width: 1px !important; height: 1px;
  overflow: hidden; clip-path: inset(50%); padding: 0 !important; }
#crops { --least: 5.5rem; } #made, #preview { --least: 9.5rem; }
/* Ends of sliders say what they mean in place of numbers. */
.ends .tab-like-container { display: none; }
.ends .min_value, .ends .max_value { display: inline !important; margin: 0; font-size: 0; }
.ends .min_value::after, .ends .max_value::after { font-size: 0.85rem; white-space: nowrap;
  color: var(--body-text-color); }
#balance .min_value::after { content: "my photos"; } #balance .max_value::after { content: "my prompt"; }
#across .min_value::after { content: "left"; } #across .max_value::after { content: "right"; }
#down .min_value::after { content: "top"; } #down .max_value::after { content: "bottom"; }
/* The buttons stay in sight however long the column is, and the pictures beside them. */
#go { position: sticky; bottom: 0; z-index: 50; padding: 0.5rem 0; background: var(--body-background-fill);
  gap: 0.5rem; }
#buttons { flex-wrap: nowrap; }
#go button { min-width: 0; }
#words { max-height: 25vh; overflow-y: auto; }
html { scroll-padding-bottom: 10rem; }
#quality .wrap, #count .wrap { gap: 0.25rem; }
#quality label, #count label { padding: 0.25rem 0.5rem !important; }
#settings .value { overflow-wrap: anywhere; }
#results { position: sticky; top: 0.5rem; align-self: flex-start; }
@media (max-width: 40rem) {
  .gradio-container > .main { padding: 0.75rem !important; }
  #made, #preview { --least: 8rem; }
}
"""

# Nothing is shared with anybody, so gradio's button for that goes.
STRIP: dict[str, Any] = {
    "columns": 4,
    "height": "auto",
    "fit_columns": False,
    "interactive": False,
    "allow_preview": False,
    "buttons": [],
}
SHOWN: dict[str, Any] = STRIP | {"allow_preview": True, "buttons": ["download", "fullscreen"]}
"""How galleries look."""
WRITTEN: dict[str, Any] = {"sanitize_html": False, "latex_delimiters": []}
"""How HTML of our own is shown, in which all that comes from outside is escaped. gr.HTML would evaluate
scripts to show it, which the policy of the page forbids."""
