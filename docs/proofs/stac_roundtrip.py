"""Items of STAC through a flow to stac-geoparquet, read back by others, compared with what went in.

    python stac_roundtrip.py BINARY FOLDER... [--schema KEY=FILE]... [--refers-to FILE]... [--check COMMAND]... > table.md

Every file below a FOLDER that holds items (an item, a FeatureCollection, a list, a line each) is a flow of its own:
`files: {format: stac, infer_rows: all}` to `stac_geoparquet`. What it wrote is read by each reader in READERS. What counts
as the same is in `plain` and `difference`, each rule with its reason. What a file tells under KEY of its metadata is held against
the JSON Schema in FILE, and the file is given to each COMMAND, which fails where it is not valid.
Needs pyarrow, shapely, duckdb, stac-geoparquet, rustac, and for `--schema` jsonschema.
"""
import argparse
import asyncio
import collections
import json
import shlex
import subprocess
import tempfile
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import rustac
import shapely
import stac_geoparquet.arrow

MEMBERS = {"type", "id", "stac_version", "stac_extensions", "geometry", "bbox", "links", "assets", "collection"}
TIMES = {"datetime", "start_datetime", "end_datetime", "created", "updated", "expires", "published", "unpublished"}
CORNERS = ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax")

FLOW = """name: roundtrip
execution: {{ on_error: dead_letter, dead_letter: rejected, max_rejected: 100% }}
source: {{ files: {{ paths: [{path}], format: {format}{more} }} }}
sink: {{ stac_geoparquet: {{ path: items.parquet, allow_empty: true }} }}
"""


# --- what is in a file ------------------------------------------------------

def items_in(path):
    """The items of a file; nothing, where it holds something else."""
    if path.suffix == ".parquet":
        return by_hand(pq.read_table(path).to_pylist())
    text = path.read_text()
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(value, dict):
        value = value.get("features", []) if value.get("type") == "FeatureCollection" else [value]
    if not isinstance(value, list):
        return []
    return value if all(isinstance(one, dict) and one.get("type") == "Feature" for one in value) else []


# --- what others read -------------------------------------------------------

def by_hand(rows):
    """Rows as the specification lays them out: a column that is no member of an item is a property."""
    items = []
    for row in rows:
        item = {name: row[name] for name in MEMBERS if name in row}
        item["geometry"] = geometry(row.get("geometry"))
        if isinstance(row.get("bbox"), dict):
            item["bbox"] = [row["bbox"][at] for at in CORNERS if row["bbox"].get(at) is not None]
        item["properties"] = {
            name: geometry(value) if isinstance(value, (bytes, bytearray)) else value
            for name, value in row.items() if name not in MEMBERS
        }
        items.append(item)
    return items


def geometry(wkb):
    return None if wkb is None else shapely.geometry.mapping(shapely.from_wkb(bytes(wkb)))


def with_pyarrow(path):
    return by_hand(pq.read_table(path).to_pylist())


def with_duckdb(path):
    with duckdb.connect() as db:
        # Else it wants its extension for geometries, to read WKB as such.
        db.execute("SET enable_geoparquet_conversion = false; SET TimeZone = 'UTC'")
        return by_hand(db.execute("SELECT * FROM read_parquet(?)", [str(path)]).to_arrow_table().to_pylist())


def with_stac_geoparquet(path):
    return list(stac_geoparquet.arrow.stac_table_to_items(pq.read_table(path)))


def with_rustac(path):
    async def read():
        return await rustac.read(str(path))
    return asyncio.run(read())["features"]


class Checks:
    """Checks of a file as a file, whatever its items say."""
    def __init__(self, schemas, referred, commands):
        self.schemas = {}
        for key, _, file in (schema.partition("=") for schema in schemas):
            import jsonschema
            from referencing import Registry, Resource
            referred_to = [json.loads(Path(other).read_text()) for other in referred]
            registry = Registry().with_resources((one["$id"], Resource.from_contents(one)) for one in referred_to)
            self.schemas[key] = jsonschema.Draft7Validator(json.loads(Path(file).read_text()), registry=registry)
        self.commands = commands

    def names(self):
        return [f"schema of `{key}`" for key in self.schemas] + [f"`{command}`" for command in self.commands]

    def run(self, path):
        """Name and what is wrong, or nothing."""
        told = pq.read_metadata(path).metadata
        for key, schema in self.schemas.items():
            wrong = next(schema.iter_errors(json.loads(told[key.encode()])), None)
            yield f"schema of `{key}`", wrong and f"{wrong.json_path}: {wrong.message}"
        for command in self.commands:
            ended = subprocess.run([*shlex.split(command), str(path)], capture_output=True, text=True)
            lines = [line.strip() for line in (ended.stdout + ended.stderr).splitlines()]
            failed = "; ".join(line for line in lines if line.startswith("FAIL")) or (lines or [""])[-1]
            yield f"`{command}`", failed if ended.returncode else None


READERS = {"pyarrow": with_pyarrow, "duckdb": with_duckdb, "stac-geoparquet": with_stac_geoparquet, "rustac": with_rustac}


# --- what is the same -------------------------------------------------------

def plain(item):
    """An item without what a column cannot tell: `null` is a member that is not there ("null" in the specification's
    "Item to row"), and Parquet has no struct without fields, so that `{}` and a list that is always empty are not there
    either. Its eight times are instants (the specification makes them timestamps), to the microsecond."""
    properties = dict(item.get("properties") or {})
    for name in TIMES & properties.keys():
        properties[name] = instant(properties[name])
    return bare({**item, "properties": properties}) or {}


def instant(value):
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip().replace("Z", "+00:00").replace("z", "+00:00"))
        except ValueError:
            return value
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=timezone.utc)).astimezone(timezone.utc).isoformat()
    return value


def bare(value):
    if isinstance(value, dict):
        value = {name: bare(member) for name, member in value.items()}
        return {name: member for name, member in value.items() if member is not None} or None
    if isinstance(value, (list, tuple)):
        return [bare(element) for element in value] or None
    return value


def difference(want, have, at=""):
    """Where two values differ first: numbers are equal by value, 1 and 1.0 are one number of JSON."""
    if isinstance(want, dict) and isinstance(have, dict):
        for name in sorted(want.keys() | have.keys()):
            found = difference(want.get(name), have.get(name), f"{at}/{name}")
            if found:
                return found
        return None
    if isinstance(want, list) and isinstance(have, list) and len(want) == len(have):
        return next(filter(None, (difference(a, b, f"{at}/{n}") for n, (a, b) in enumerate(zip(want, have)))), None)
    if isinstance(want, bool) == isinstance(have, bool) and want == have:
        return None
    return f"`{at}` is {shown(want)}, read {shown(have)}"


def shown(value):
    text = "absent" if value is None else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


# --- the trial --------------------------------------------------------------

def written(binary, path, folder):
    """Runs the flow; what was rejected by row, and why it failed."""
    is_table = path.suffix == ".parquet"
    more = "" if is_table else ", infer_rows: all"
    flow = FLOW.format(path=json.dumps(str(path)), format="stac", more=more)
    (folder / "flow.yaml").write_text(flow)
    ended = subprocess.run([binary, "run", "flow.yaml", "-q"], cwd=folder, capture_output=True, text=True)
    rejected = {}
    for letters in folder.glob("rejected/**/*.ndjson"):
        for line in letters.read_text().splitlines():
            letter = json.loads(line)
            rejected[(letter.get("origin") or {}).get("row")] = letter
    return rejected, None if ended.returncode == 0 else ended.stderr.strip()


def trial(binary, path, tally, checks):
    items = items_in(path)
    tally["items"] += len(items)
    if not items:
        return
    tally["files"] += 1
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        rejected, failure = written(binary, path, folder)
        if failure and not rejected:
            tally["rejected"] += len(items)
            yield "rejected", path, failure
            return
        for letter in rejected.values():
            tally["rejected"] += 1
            yield "rejected", path, letter["message"]
        if failure:
            if len(rejected) != len(items):
                yield "rejected", path, failure
            return
        kept = [plain(item) for row, item in enumerate(items, 1) if row not in rejected]
        for name, wrong in checks.run(folder / "items.parquet"):
            tally[name] += wrong is None
            if wrong:
                yield name, path, wrong
        for name, read in READERS.items():
            yield from compared(name, read, path, folder / "items.parquet", kept, tally)


def compared(name, read, path, output, kept, tally):
    try:
        have = [plain(item) for item in read(output)]
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a reader does not take is its answer; a panic of Rust is no Exception
        yield name, path, f"cannot read: {str(error).splitlines()[0]}"
        return
    if len(have) != len(kept):
        yield name, path, f"{len(kept)} items went in, {len(have)} are read"
        return
    for want, item in zip(kept, have):
        found = difference(want, item)
        tally[name] += found is None
        if found:
            yield name, path, found


def main():
    args = argparse.ArgumentParser()
    args.add_argument("binary")
    args.add_argument("folders", nargs="+", type=lambda folder: Path(folder).resolve())
    args.add_argument("--schema", action="append", default=[])
    args.add_argument("--refers-to", action="append", default=[], help="a schema that one of these refers to")
    args.add_argument("--check", action="append", default=[])
    args = args.parse_args()
    checks = Checks(args.schema, args.refers_to, args.check)
    tallies, notes = {}, collections.Counter()
    for folder in args.folders:
        tally = tallies[folder.name] = collections.Counter()
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix in (".json", ".geojson", ".ndjson", ".parquet"):
                try:
                    for who, where, what in trial(args.binary, path, tally, checks):
                        notes[who, str(where.relative_to(folder.parent)), what.replace(f"{path.parent}/", "")] += 1
                except (json.JSONDecodeError, UnicodeDecodeError):
                    tally["no JSON"] += 1
    print_table(tallies, notes, checks)


def print_table(tallies, notes, checks):
    versions = ", ".join(f"{name} {version(name)}" for name in READERS)
    print(f"Readers: {versions}.\n")
    columns = ["files", "items", "rejected", *READERS, *checks.names()]
    print("| folder | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for folder, tally in tallies.items():
        print(f"| {folder} | " + " | ".join(str(tally[column]) for column in columns) + " |")
    all_of = {column: sum(tally[column] for tally in tallies.values()) for column in columns}
    print("| all | " + " | ".join(str(n) for n in all_of.values()) + " |")
    print("\n| who | file | n | what |\n|---|---|---|---|")
    for (who, where, what), n in sorted(notes.items()):
        print(f"| {who} | {where} | {n} | {' '.join(what.split()).replace('|', chr(92) + '|')[:300]} |")


if __name__ == "__main__":
    main()
