package tenants

import (
	"crypto/sha256"
	"slices"
	"strings"

	"datasync/feeds"
)

// Set is all tenants at one moment. It is immutable; a reload makes another.
type Set struct {
	byID  map[feeds.TenantID]*Tenant
	all   []*Tenant
	byKey map[[sha256.Size]byte]feeds.TenantID
}

// NewSet makes a set of tenants whose ids and keys do not meet.
func NewSet(all ...*Tenant) *Set {
	s := &Set{
		byID:  make(map[feeds.TenantID]*Tenant, len(all)),
		all:   slices.Clone(all),
		byKey: make(map[[sha256.Size]byte]feeds.TenantID, len(all)),
	}
	slices.SortFunc(s.all, func(a, b *Tenant) int { return strings.Compare(string(a.ID), string(b.ID)) })
	for _, t := range s.all {
		s.byID[t.ID] = t
		for _, k := range t.APIKeys {
			s.byKey[sha256.Sum256([]byte(k))] = t.ID
		}
	}
	return s
}

// Tenant is the tenant of an id; nil where there is none.
func (s *Set) Tenant(id feeds.TenantID) *Tenant { return s.byID[id] }

// All is every tenant, by id. The slice must not be changed.
func (s *Set) All() []*Tenant { return s.all }

// Len is the number of tenants.
func (s *Set) Len() int { return len(s.all) }

// ByKey is the tenant that an API key belongs to. The key is looked up by its
// SHA-256, so that the time taken says nothing of the keys held.
func (s *Set) ByKey(key string) (feeds.TenantID, bool) {
	if key == "" {
		return "", false
	}
	id, ok := s.byKey[sha256.Sum256([]byte(key))]
	return id, ok
}
