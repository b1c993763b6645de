"""The look of the page: a theme of fonts that every system has, and a little CSS, in light and dark."""

from __future__ import annotations

from typing import Any

TITLE = "iterinv"
HEADER = """
<header class="head">
  <svg viewBox="0 0 96 32" width="96" height="32" role="img" aria-label="noise turns into a picture">
    <defs><linearGradient id="turn"><stop offset="0" stop-color="#94a3b8"/><stop offset="1" stop-color="#0d9488"/>
    </linearGradient></defs>
    <g fill="#94a3b8"><rect x="2" y="6" width="5" height="5"/><rect x="12" y="3" width="5" height="5" opacity=".6"/>
    <rect x="7" y="14" width="5" height="5" opacity=".8"/><rect x="17" y="12" width="5" height="5"/>
    <rect x="2" y="22" width="5" height="5" opacity=".5"/><rect x="13" y="23" width="5" height="5"/></g>
    <path d="M30 16h26m-6-5 6 5-6 5M36 11l-6 5 6 5" fill="none" stroke="url(#turn)" stroke-width="2.5"/>
    <circle cx="78" cy="16" r="12" fill="#0d9488"/><circle cx="74" cy="12" r="3.5" fill="#fff" opacity=".65"/>
  </svg>
  <div><h1>iterinv</h1>
  <p>Turn a picture back into the noise that reproduces it, pixel by pixel, and edit it with words.</p></div>
</header>
"""

CSS = """
.gradio-container { width: 100%; max-width: min(1400px, 100vw) !important; margin: 0 auto;
  overflow: clip visible !important; padding-inline: 0 !important; }
.gradio-container main.contain, .gradio-container .main > .wrap { min-width: 0; max-width: 100%; }
.gradio-container .main > .wrap { padding-inline: clamp(4px, 2vw, 28px); }
.head { display: flex; gap: 18px; align-items: center; padding: 10px 2px 4px; }
.head svg { flex: none; }
.head h1 { font-size: 1.5rem; margin: 0; letter-spacing: -.02em; }
.head p { margin: 0; color: var(--body-text-color-subdued); }
.bar { position: sticky; top: 8px; z-index: 30; align-items: stretch; background: var(--background-fill-primary);
  border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg); padding: 8px 10px !important;
  box-shadow: 0 4px 16px rgb(15 23 42 / .08); gap: 10px !important; }
.bar > button { flex: none !important; align-self: center; }
.status p { margin: 0; }
.status { font-size: .9rem; border-left: 3px solid var(--border-color-primary); padding: 4px 10px; min-height: 34px; }
.status.running, .status.done { border-color: var(--color-accent); }
.status.problem { border-color: #dc2626; }
.status label { display: grid; grid-template-columns: 13em 1fr 9em; gap: 10px;
  align-items: center; color: var(--body-text-color-subdued); font-size: .82rem; }
.status progress { width: 100%; height: 6px; appearance: none; border: 0; border-radius: 3px; overflow: hidden;
  background: var(--border-color-primary); accent-color: var(--color-accent); }
.status progress::-webkit-progress-bar { background: var(--border-color-primary); }
.status progress::-webkit-progress-value { background: var(--color-accent); }
.status progress::-moz-progress-bar { background: var(--color-accent); }
.status ul, .words ul { margin: 4px 0 0; padding-left: 1.2em; color: var(--body-text-color-subdued); font-size: .82rem;
  list-style: disc; }
.status ul { max-height: 7.5em; overflow: auto; }
.words .lead { font-size: 1.1rem; font-weight: 600; margin: 0 0 2px; }
.words p { margin: 0 0 6px; }
.scroll { overflow-x: auto; }
.scroll table { border-collapse: collapse; width: 100%; font-size: .85rem; font-variant-numeric: tabular-nums; }
.scroll caption { text-align: left; color: var(--body-text-color-subdued); padding: 4px 0; }
.scroll table, .scroll tr, .scroll thead, .scroll tbody { border: 0 !important; }
.scroll th, .scroll td { text-align: right; padding: 5px 10px !important; border: 0 !important;
  border-bottom: 1px solid var(--border-color-primary) !important; }
.scroll thead th { font-weight: 500; color: var(--body-text-color-subdued); vertical-align: bottom; }
.scroll th:first-child { text-align: left; }
.scroll td { white-space: nowrap; }
.sheet .image-container { padding-top: 30px; background: white; }
.scroll tbody th { font-weight: 500; white-space: nowrap; }
.hint p { color: var(--body-text-color-subdued); font-size: .88rem; margin: 0; }
.go { align-items: stretch; }
.go > button { align-self: stretch; }
.examples .grid-container { grid-template-columns: repeat(3, minmax(0, 1fr)) !important; }
#history .grid-wrap { padding-top: 34px !important; }
:is(#path, #terminal-noise):has(.empty) { display: none !important; }
#path .grid-wrap { padding-top: 34px !important; max-height: none !important; }
#path, #path .grid-wrap, #path .gallery-container { min-height: 0 !important; height: auto !important; }
#path .grid-container { grid-template-columns: repeat(auto-fill, minmax(88px, 1fr)) !important; }
#path .caption-label { font-size: .68rem; padding: 1px 4px; }
#noise figure { margin: 0; max-width: 360px; }
#noise .bars { fill: var(--primary-500); opacity: .45; }
#noise .bell { fill: none; stroke: var(--body-text-color); stroke-width: 1.5; }
#noise .axis { stroke: var(--border-color-primary); }
#noise text { font-size: 10px; text-anchor: middle; fill: var(--body-text-color-subdued); }
#noise figcaption { font-size: .82rem; color: var(--body-text-color-subdued); }
@media (min-width: 1000px) {
  #metrics .wrap { display: grid; grid-template-columns: 1fr 1fr; }
}
.downloads { gap: 8px !important; }
.gradio-container { --focus: var(--primary-700); }
.dark .gradio-container, .gradio-container.dark { --focus: var(--primary-300); }
.gradio-container :focus-visible { outline: 3px solid var(--focus) !important; outline-offset: 1px; }
.gradio-container :is(input, textarea):focus-visible { outline-offset: -2px; }
.gradio-container label:has(:is([type=radio], [type=checkbox]):focus-visible) { outline: 3px solid var(--focus); }
.gradio-container button[role=tab]:focus-visible, .gradio-container .label-wrap:focus-visible { outline-offset: -3px; }
.gradio-container [data-testid=slider]:focus-visible { outline: 0 !important; }
.gradio-container [data-testid=slider]:focus-visible .icon-wrap { outline: 3px solid var(--focus); outline-offset: 2px;
  }
.dark button[role=tab].selected { color: var(--primary-300); }
@media (max-width: 640px) {
  .head svg { display: none; }
  .gradio-container .main { padding: 8px; }
  .bar { position: fixed; inset: auto 8px 8px; width: auto; max-height: 45vh; overflow: auto; }
  .gradio-container .main > .wrap { padding-bottom: 120px; }
  .status label { grid-template-columns: 1fr auto; }
  .status progress { grid-column: 1 / -1; grid-row: 2; }
  .status label:not(:nth-last-of-type(-n + 2)) { display: none; }
}
"""

JS = """
() => {
  const label = (each) => {
    const block = each.parentElement.closest('[aria-label], .block, .tabitem');
    return block?.querySelector('label[data-testid="block-label"]')?.textContent.trim() || '';
  };
  // A handle lies at a share of the picture, which may be narrower than the element that it is in.
  const place = (handle) => {
    const img = handle.parentElement.querySelector('img');
    if (!img) return { share: NaN };
    const wide = Math.min(img.clientWidth, img.clientHeight * img.naturalWidth / img.naturalHeight);
    const left = (img.clientWidth - wide) / 2;
    const here = new DOMMatrix(getComputedStyle(handle).transform).m41;
    return { wide, left, share: Math.min(Math.max((here - left) / wide, 0), 1) };
  };
  const say = (handle) => {
    const percent = Math.round(100 * place(handle).share);
    if (Number.isNaN(percent)) return;
    handle.setAttribute('aria-valuenow', percent);
    handle.setAttribute('aria-valuetext', `${label(handle).split(', and ')[0]}: ${percent} % of the width`);
  };
  const move = (handle, share) => {
    const { wide, left } = place(handle), box = handle.parentElement.getBoundingClientRect();
    const at = { clientX: box.left + left + wide * Math.min(Math.max(share, 0), 1), clientY: box.top + 1 };
    handle.dispatchEvent(new MouseEvent('mousedown', { ...at, bubbles: true, cancelable: true, view: window }));
    window.dispatchEvent(new MouseEvent('mouseup', { ...at, view: window }));
  };
  // Gradio places a handle again when its pictures load and when they are shown, so the value follows the handle.
  const placed = new MutationObserver((changes) => changes.forEach((each) => say(each.target)));
  const by = { ArrowLeft: -.02, ArrowDown: -.02, ArrowRight: .02, ArrowUp: .02, PageDown: -.2, PageUp: .2 };
  const name = () => {
    document.querySelectorAll('.gradio-container img').forEach((img) => {
      if (img.dataset.testid === 'imageslider-image') {
        const [before, after] = label(img).split(', and ');
        const said = img.classList.contains('fixed') ? after : before;
        if (said && img.alt !== said) img.alt = said;
      } else if (!img.alt) img.alt = label(img) || 'picture';
    });
    document.querySelectorAll('.empty[aria-label]:not([role])').forEach((each) => each.setAttribute('role', 'img'));
    document.querySelectorAll('.cm-scroller[tabindex="-1"]').forEach((each) => { each.tabIndex = 0; });
    document.querySelectorAll('[data-testid=slider]:not([tabindex])').forEach((each) => {
      const range = { 'aria-valuemin': 0, 'aria-valuemax': 100, 'aria-valuenow': 50 };
      const all = { role: 'slider', tabindex: 0, 'aria-label': label(each), ...range };
      Object.entries(all).forEach((pair) => each.setAttribute(...pair));
      placed.observe(each, { attributeFilter: ['style'] });
    });
  };
  document.addEventListener('focusin', (event) => event.target.matches('[data-testid=slider]') && say(event.target));
  document.addEventListener('keydown', (event) => {
    const handle = event.target;
    if (!handle.matches('[data-testid=slider]') || event.ctrlKey || event.altKey || event.metaKey) return;
    const ends = { Home: 0, End: 1 }, key = event.key;
    if (!(key in by) && !(key in ends)) return;
    event.preventDefault();
    move(handle, key in ends ? ends[key] : place(handle).share + by[key]);
  });
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true, attributeFilter: ['alt'] });
  name();
}
"""
"""Pictures without a text get the label of their block as one, and sliders can be moved by the keyboard."""


def theme() -> Any:
    """The theme, as Gradio takes it."""
    import gradio as gr

    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_md,
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        color_accent="*primary_700",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        block_shadow="none",
        block_label_text_weight="500",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_text_color="white",
        button_large_text_weight="600",
    )
