"""The web page: it shows the events and results of :mod:`iterinv.workbench` in a browser. Gradio is imported where the
page is built."""
