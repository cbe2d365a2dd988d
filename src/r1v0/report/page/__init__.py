"""RUN/report.html: one file that shows a run, or several compared, to whoever has a browser.

    chart.py     a panel of curves as geometry: what the template draws as SVG
    facts.py     a run in words: model, machine, hours, evaluations, settings
    texts.py     what the model wrote, chosen evenly to fit
    render.py    the pages, and how they are written
    *.jinja, page.css, page.js

Decides: charts are SVG that our own templates draw from the same series as the figures. A chart library is larger than
all the curves of a run (Plotly's is 3.5 MB, more than the whole page may have), needs a script for every line, and
would have to be let past the page's content security policy; ours is drawn without any script. Templates are jinja2's,
which prompts need anyway, with escaping on. Whatever a model or a dataset wrote goes in as escaped JSON and comes out
through textContent, so it is never parsed as a page; and the policy names the one script and the one style by their
hashes, so that nothing else would run if it were.
"""
