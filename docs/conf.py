"""Sphinx: the pages are Markdown (MyST), the reference parts come from the code itself (see reference.py)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = 'remote_runner'
copyright = 'the authors of remote_runner'

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'reference']
exclude_patterns = ['_build']
nitpicky = False

myst_enable_extensions = ['colon_fence', 'deflist']
myst_heading_anchors = 3
smartquotes = False  # `--screen` is an option, no dash

autodoc_member_order = 'bysource'
autodoc_typehints = 'none'
default_role = 'literal'  # `names` in docstrings
add_module_names = False

html_theme = 'alabaster'
html_theme_options = {
    'description': 'Multi-process systems over many hosts, through plain SSH, in screen sessions',
    'fixed_sidebar': True,
    'page_width': '1140px',
    'sidebar_width': '260px',
    'show_powered_by': False,
}
html_show_copyright = False
