"""The composition root: settings, URLs, processes, and the pages that join several apps."""
