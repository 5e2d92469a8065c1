"""Reads drops with pyarrow, all in one start: python arrow.py REQUEST.

Request, rows and answer are those of duckdb.mjs, the canonical text too.
"""
import csv
import hashlib
import json
import re
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

ROWS = 32 << 10  # that are held at once
TYPES = {"string": pa.string(), "int8": pa.int8(), "int32": pa.int32(), "int64": pa.int64(), "time": pa.int64(),
         "double": pa.float64(), "bool": pa.bool_(), "list": pa.list_(pa.string())}


def join(*parts):
    return pc.binary_join_element_wise(*parts, "")


def mark(letter, numbers):
    return pc.fill_null(join(letter, numbers.cast(pa.string())), "-")


def members(column, array):
    return join("o", *[text(m, pc.struct_field(array, [m["name"]])) for m in column["members"]])


def items(array, texts):
    """One text a list, of the texts of all elements."""
    counts = pc.fill_null(pc.list_value_length(array), 0)
    ends = pc.cumulative_sum(counts).cast(pa.int32())
    lists = pa.ListArray.from_arrays(pa.concat_arrays([pa.array([0], pa.int32()), ends]), texts)
    return join("l", counts.cast(pa.string()), "(", pc.binary_join(lists, ""))


def unless_null(array, texts):
    return pc.if_else(pc.is_null(array), "-", texts)


def text(column, array):
    kind = column["type"]
    if kind in ("string", "json"):
        return pc.fill_null(join(pc.binary_length(array).cast(pa.string()), ":", array), "-")
    if kind in ("int8", "int32", "int64"):
        return mark("i", array)
    if kind == "double":
        return mark("f", array.view(pa.int64()))
    if kind == "bool":
        return pc.fill_null(pc.if_else(array, "b1", "b0"), "-")
    if kind == "time":
        return mark("t", array.cast(pa.int64()))
    if kind == "list":
        return unless_null(array, items(array, text({"type": "string"}, array.flatten())))
    if kind == "struct":
        return unless_null(array, members(column, array))
    if kind == "structs":
        return unless_null(array, items(array, members(column, array.flatten())))
    raise ValueError(f"column {column['name']}: no such type: {kind}")


def json_type(column):
    """What a member of NDJSON must be; pyarrow refuses anything else."""
    if "members" not in column:
        return TYPES[column["type"]]
    struct = pa.struct([(m["name"], json_type(m)) for m in column["members"]])
    return pa.list_(struct) if column["type"] == "structs" else struct


def leaf(column):
    """A leaf of a Parquet schema, in the words that duckdb.mjs uses."""
    logical = str(column.logical_type)
    stamp = re.match(r"Timestamp\(isAdjustedToUTC=(\w+), timeUnit=(\w+)", logical)
    whole = re.match(r"Int\(bitWidth=(\d+), isSigned=(\w+)\)", logical)
    if stamp:
        logical = f"Timestamp({'ms' if stamp[2] == 'milliseconds' else 'other'},{'UTC' if stamp[1] == 'true' else 'local'})"
    elif whole:
        logical = ("Int" if whole[2] == "true" else "UInt") + whole[1]
    elif logical == "None":
        logical = "-"
    return f"{column.path} {column.physical_type} {logical} {column.max_definition_level} {column.max_repetition_level}"


def field_type(field):
    return f"{field.name} {field.type}" + ("" if field.nullable else " not null")


class Reading:
    def __init__(self, request, out):
        self.request = request
        self.rows = csv.writer(out, delimiter="\t", lineterminator="\n")
        self.schemas = []  # (of Parquet, of Arrow, files)
        self.held, self.places, self.count = [], [], 0

    def schema(self, place, file):
        for parquet, arrow, files in self.schemas:
            if parquet.equals(file.schema) and arrow.equals(file.schema_arrow):
                files.append(place)
                return
        self.schemas.append((file.schema, file.schema_arrow, [place]))

    def batches(self, place, path):
        if self.request["format"] == "parquet":
            with pq.ParquetFile(path) as file:
                self.schema(place, file)
                yield from file.iter_batches(ROWS, use_threads=False)
            return
        schema = pa.schema([(c["name"], json_type(c)) for c in self.request["columns"]])
        codec = {"gz": "gzip", "zst": "zstd"}.get(path.rsplit(".", 1)[1])
        with pa.input_stream(path, compression=codec) as stream:
            yield from pj.open_json(stream, read_options=pj.ReadOptions(use_threads=False, block_size=4 << 20),
                                    parse_options=pj.ParseOptions(schema, unexpected_field_behavior="ignore"))

    def read(self):
        for place, path in enumerate(self.request["files"]):
            try:
                for batch in self.batches(place, path):
                    for at in range(0, len(batch), ROWS):
                        self.add(place, batch.slice(at, ROWS))
            except (pa.ArrowException, OSError) as error:
                raise SystemExit(f"{path}: {error}")
        self.write()
        return [{"leaves": [leaf(parquet.column(i)) for i in range(len(parquet))],
                 "types": [field_type(f) for f in arrow], "files": files} for parquet, arrow, files in self.schemas]

    def add(self, place, batch):
        if self.held and (self.count + len(batch) > ROWS or not self.held[0].schema.equals(batch.schema)):
            self.write()
        self.held.append(batch)
        self.places.extend([place] * len(batch))
        self.count += len(batch)

    def write(self):
        """Writes what is held: many small files cost as much as one large one."""
        if not self.held:
            return
        table = pa.Table.from_batches(self.held).combine_chunks()
        column = lambda name: table.column(name).combine_chunks()
        time = lambda name: column(name).cast(pa.int64()).to_pylist() if name in table.column_names else [0] * len(table)
        texts = [text(c, column(c["name"])) for c in self.request["columns"] if c["name"] not in self.request["apart"]]
        if self.request["whole"]:
            rows = [json.dumps(row) for row in zip(*[t.to_pylist() for t in texts])]
        else:
            rows = [hashlib.md5(row).hexdigest()[:16] for row in join(*texts).cast(pa.binary()).to_pylist()]
        self.rows.writerows(zip(self.places, column("event_id").to_pylist(), time("event_time"), time("ingest_time"), rows))
        self.held, self.places, self.count = [], [], 0


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        request = json.load(file)
    with open(request["out"], "w", encoding="utf-8", newline="") as out:
        schemas = Reading(request, out).read()
    json.dump({"version": pa.__version__, "schemas": schemas}, sys.stdout)


main()
