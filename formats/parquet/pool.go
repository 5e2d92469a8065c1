package parquet

import (
	"bufio"
	"fmt"
	"slices"
	"strings"
	"sync"

	pq "github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/compress/snappy"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"datasync/schemas"
)

// maxPools is how many different settings have idle machines kept for them;
// encoders of further ones are made each time.
const maxPools = 64

// pool makes machines of one setting and keeps idle ones. sync.Pool lets go of
// them when they stay idle.
type pool struct {
	codec    compress.Codec
	fields   []string
	machines sync.Pool
}

var (
	poolsMu sync.Mutex
	pools   = map[string]*pool{} // by the setting, spelled out
)

// poolOf is the pool of a setting.
func poolOf(o Options) (*pool, error) {
	if err := CheckFields(o.Fields); err != nil {
		return nil, err
	}
	codec, err := codecOf(o.Compression, o.Level)
	if err != nil {
		return nil, err
	}
	key := fmt.Sprintf("%s %d %s", o.Compression, o.Level, strings.Join(o.Fields, ","))
	poolsMu.Lock()
	defer poolsMu.Unlock()
	if p, ok := pools[key]; ok {
		return p, nil
	}
	p := &pool{codec: codec, fields: slices.Clone(o.Fields)}
	if len(pools) < maxPools {
		pools[key] = p
	}
	return p, nil
}

// get is a machine, used or new.
func (p *pool) get() (*machine, error) {
	if m, ok := p.machines.Get().(*machine); ok {
		return m, nil
	}
	var fields []string
	if len(p.fields) > 0 {
		fields = p.fields
	}
	schema, cols := layout(fields)
	f, err := newFooter(schema,
		pq.CreatedBy("datasync", "1.0.0", "parquet-go"), // the same for every build: bytes must be
		pq.KeyValueMetadata("datasync.schema", schemas.Version))
	if err != nil {
		return nil, err
	}
	m := &machine{
		home: p, chunks: make([]chunk, len(cols)), events: make([]schemas.Event, batchRows),
		press: newPress(p.codec), footer: f, file: bufio.NewWriterSize(nil, writeBytes),
	}
	for i, c := range cols {
		m.chunks[i] = chunk{column: c, index: c.typ.NewColumnIndexer(indexBytes)}
		m.chunks[i].meta.Codec = p.codec.CompressionCodec()
		if c.dictionary {
			m.chunks[i].dict = new(dictionary)
		}
	}
	return m, nil
}

// zstds has a codec a speed, each with its own pool of encoders.
var zstds = map[zstd.Level]*zstd.Codec{}

func init() {
	for _, l := range []zstd.Level{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression, zstd.SpeedBestCompression} {
		zstds[l] = &zstd.Codec{Level: l, Concurrency: 1}
	}
}

// codecOf is the library's codec of a compression and level.
func codecOf(compression string, level int) (compress.Codec, error) {
	switch {
	case compression == "zstd" && level >= 0 && level <= 22:
		return zstds[speed(level)], nil
	case compression == "zstd":
		return nil, fmt.Errorf("level %d does not go with zstd; use 1 to 22, or 0 for the fastest", level)
	case level != 0:
		return nil, fmt.Errorf("level %d: compression %q has no levels; leave it out", level, compression)
	case compression == "" || compression == "none":
		return &pq.Uncompressed, nil
	case compression == "snappy":
		return &snappy.Codec{}, nil
	default:
		return nil, fmt.Errorf("compression %q does not go with Parquet; use none, snappy or zstd", compression)
	}
}

// speed is the one of the library's four kinds of zstd that is nearest to a
// level, as it counts them itself.
func speed(level int) zstd.Level {
	switch {
	case level < 3:
		return zstd.SpeedFastest
	case level < 6:
		return zstd.SpeedDefault
	case level < 10:
		return zstd.SpeedBetterCompression
	default:
		return zstd.SpeedBestCompression
	}
}
