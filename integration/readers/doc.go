// Package readers has DuckDB and pyarrow read drops whole, and holds what they find to the events that were made.
package readers
