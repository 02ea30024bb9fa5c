"""What users write (configs, muddlers, arg parsers) and its loading. Nothing here knows of connections.

`attributes` is the table of what a component may say; `component` the two classes that users see, `util` the helpers
beside them. `settings` is the command line as users' files see it, `usercode` runs one such file and turns its errors
into messages that name its own lines, `going_on` lets it run on after an attribute that no component has, `python2`
recognises files of the other Python, and `loader` is the story: parser, config, muddlers. `paths` is what they share
about paths, `trees` and `exclude` are what `util` finds in folders and leaves out.

`sweep` has `Sweep`, which is much like a `Component` (`attributed`), and the tasks it makes; `sweep_attributes` is its
table. `parameters` are the sets of them, `template` is text with parameters in it, `collect` what becomes of results.
"""
