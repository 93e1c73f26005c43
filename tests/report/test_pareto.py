import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from monai_deepfixcx.report.pareto import Point, front, pareto_svg

PLACES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8)
SVG = "{http://www.w3.org/2000/svg}"


def point(name: str, leakage: float, utility: float, reference: bool = False) -> Point:
    return Point(name, name[-1], (leakage, leakage - 0.05, leakage + 0.05), (utility, None, None), reference)


@given(PLACES)
def test_front_holds_what_no_other_point_beats(places: list[tuple[int, int]]) -> None:
    points = [point(str(number), float(x), float(y)) for number, (x, y) in enumerate(places)]
    kept = {found.name for found in front(points)}
    for number, (x, y) in enumerate(places):
        beaten = any((a <= x and b > y) or (a < x and b >= y) for a, b in places)
        assert (str(number) in kept) is not beaten


def drawing(points: list[Point]) -> ET.Element:
    text = pareto_svg(points, 'a "title" & more', "leakage", (0.0, 1.0))
    return ET.fromstring(text.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def test_more_leakage_is_further_right_and_more_utility_further_up() -> None:
    root = drawing([point("p1", 0.2, 0.7), point("p2", 0.6, 0.9), point("U", 0.9, 0.95, reference=True)])
    first, second, third = ((float(c.get("cx", 0)), float(c.get("cy", 0))) for c in root.iter(f"{SVG}circle"))
    assert first[0] < second[0] < third[0]
    assert first[1] > second[1] > third[1]


def test_the_curve_leaves_out_beaten_points_and_the_reference() -> None:
    points = [
        point("p1", 0.2, 0.7),
        point("p2", 0.6, 0.9),
        point("p3", 0.7, 0.8),
        point("U", 0.1, 0.99, reference=True),
    ]
    (line,) = drawing(points).iter(f"{SVG}polyline")
    assert len(line.get("points", "").split()) == 2


def test_it_can_be_read_without_eyes() -> None:
    root = drawing([point("p1", 0.2, 0.7)])
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'a "title" & more'
    assert "p1: leakage 0.20, AUROC 0.70" in "".join(root.itertext())


def test_values_outside_the_axis_stay_in_the_picture() -> None:
    root = drawing([point("p1", -0.5, 0.7)])
    (circle,) = root.iter(f"{SVG}circle")
    assert 0 < float(circle.get("cx", 0)) < 520
