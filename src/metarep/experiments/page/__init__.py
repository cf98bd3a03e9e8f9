"""Parts of self-contained HTML pages, which the quickstart and comparisons share: charts, maps, tasks and templates."""
