"""Draws the table of the study as SVG, with nothing but Python.

    python3 example/sweep/plot.py example/sweep/results/percolation.csv percolation.svg
"""

import csv
import math
import sys
from collections import defaultdict

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 92, 66, 52
THRESHOLD = 0.592746  # where squares without end begin to percolate
INK, QUIET, GRID = '#1f2933', '#616e7c', '#e4e7eb'
LIGHT, DARK = (102, 163, 217), (11, 54, 107)  # of the smallest squares, and of the largest ones


def draw(table, picture):
    """Draw what is in the file `table` into the file `picture`."""
    with open(table, newline='', encoding='utf-8') as file:
        curves = read(csv.DictReader(file))
    with open(picture, 'w', encoding='utf-8') as file:
        file.write(svg(curves))


def read(rows):
    """Of each size its points (p, share of squares that percolate, standard error), from small to large."""
    counts = defaultdict(lambda: [0, 0])
    for row in rows:
        count = counts[int(row['size']), float(row['p'])]
        count[0] += int(row['spanning'])
        count[1] += int(row['trials'])
    curves = defaultdict(list)
    for (size, p), (spanning, trials) in sorted(counts.items()):
        share = spanning / trials
        curves[size].append((p, share, math.sqrt(share * (1 - share) / trials)))
    return curves


def svg(curves):
    densities = [p for points in curves.values() for p, *_ in points]
    low, high = min(densities), max(densities)

    def x(p):
        return LEFT + (p - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT)

    def y(share):
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        text(LEFT, 26, 'Does a path lead through a random square of cells?', size=16, weight=600),
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        out.append(line(x(low), y(share), x(high), y(share), GRID))
        out.append(text(LEFT - 10, y(share) + 4, f'{share:.0%}', QUIET, 'end'))
    out.append(text(LEFT - 50, TOP - 12, 'squares with a path', QUIET))
    for p in sorted(set(densities))[:: max(1, len(set(densities)) // 6)]:
        out.append(line(x(p), y(0), x(p), y(0) + 5, QUIET))
        out.append(text(x(p), y(0) + 20, f'{p:.2f}', QUIET, 'middle'))
    out.append(text((x(low) + x(high)) / 2, HEIGHT - 10, 'how likely a cell is open', QUIET, 'middle'))
    if low < THRESHOLD < high:
        out.append(line(x(THRESHOLD), y(0), x(THRESHOLD), y(1), QUIET, 'stroke-dasharray="4 4"'))
        out.append(text(x(THRESHOLD) - 8, y(1) + 14, f'threshold {THRESHOLD:.4f}', QUIET, 'end'))
    ends = spread([y(points[-1][1]) for points in curves.values()])
    for number, ((size, points), end) in enumerate(zip(curves.items(), ends)):
        color = shade(number / ((len(curves) - 1) or 1))
        for p, share, error in points:
            if error:
                out.append(line(x(p), y(min(1, share + error)), x(p), y(max(0, share - error)), color))
        path = ' '.join(f'{x(p):.1f},{y(share):.1f}' for p, share, _ in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        for p, share, _ in points:
            out.append(f'<circle cx="{x(p):.1f}" cy="{y(share):.1f}" r="3" fill="{color}"/>')
        out.append(line(x(high) + 4, y(points[-1][1]), x(high) + 12, end, color))
        out.append(text(x(high) + 16, end + 4, f'{size} × {size}', color, weight=600))
    return '\n'.join([*out, '</svg>', ''])


def spread(places, distance=17):
    """These places for labels, moved apart where they would cover each other; the first ones lie lowest."""
    order = sorted(range(len(places)), key=lambda one: (-places[one], one))
    moved = dict(enumerate(places))
    for above, below in zip(order, order[1:]):
        moved[below] = min(moved[below], moved[above] - distance)
    lowest = sum(moved.values()) - sum(places)  # as much as they went up, all of them come down
    return [moved[one] - lowest / len(places) for one in range(len(places))]


def shade(part):
    return '#' + ''.join(f'{round(light + part * (dark - light)):02x}' for light, dark in zip(LIGHT, DARK))


def line(x1, y1, x2, y2, color, more=''):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" {more}/>'


def text(x, y, words, color=INK, anchor='start', size=13, weight=400):
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{color}" font-size="{size}" font-weight="{weight}">{words}</text>'


if __name__ == '__main__':
    draw(*sys.argv[1:])
