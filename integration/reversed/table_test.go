package reversed

// reversal is a line that keeps the promise, and what a program has in its
// place that does not keep it.
type reversal struct {
	file        string
	is, becomes string
	// own finds it, of the tests of the file's package: a pattern for -run; "" is
	// all of them; "-": none does, elsewhere has to.
	own string
	// seeds: the simulation finds it; locks: its interleaved build does.
	seeds, locks bool
	// elsewhere is a package and a test in integration, with the built program.
	elsewhere string
}

// reversals has one or more for each line of the product marked "// promise:".
var reversals = []reversal{
	{file: "emitter/confirm.go", is: "if err := o.c.o.Events.OnRefused(r.Record, r.At, r.Reason); err != nil {", becomes: "if err := o.c.o.Events.OnRefused(r.Record, r.At, r.Reason); err != nil && false {"},
	{file: "emitter/confirm.go", is: "if e.notify && now.Sub(c.lastWrite) >= c.o.Tuning.Grace {", becomes: "if e.notify {"},
	{file: "emitter/decide.go", is: "	if !haste {\n		m.confirmed = m.read\n	}\n	m.read = m.written\n", becomes: "	m.read = m.written\n	m.confirmed = m.read\n", own: "TestMarks", seeds: true, locks: true},
	{file: "emitter/decide.go", is: "if tail || acked-s.wire >= behind {", becomes: "if _, _ = tail, behind; true {"},
	{file: "emitter/owner.go", is: "if cause == nil && !o.suspect {", becomes: "if cause == nil && !o.suspect || o.draining {", seeds: true, locks: true},
	{file: "emitter/owner.go", is: "if cause == nil && !o.suspect {", becomes: "if cause == nil {", own: "TestDyingWeakPeer"},
	{file: "emitter/owner.go", is: "		from = c.marks.confirmed\n", becomes: "		_ = c.marks.confirmed\n", own: "TestADeadPeerMayHave", seeds: true, locks: true},
	{file: "emitter/owner.go", is: "if o.cur != nil && o.c.o.Confirm == Drain && (o.draining || o.c.owed()) {", becomes: "if false {", own: "TestStopWithoutAnAnswer"},
	{file: "emitter/relp/session.go", is: "		s.out[at].done = true\n", becomes: "		for i := range s.out {\n			s.out[i].done = true\n		}\n", seeds: true},
	{file: "emitter/emitter.go", is: "if c.closed || c.fullLocked(len(b)) {", becomes: "if c.closed || len(b) > 0 && c.fullLocked(len(b)) {", locks: true},
	{file: "feeds/file/step.go", is: "Facts: func(*intake.Result) []journal.Fact { return facts },", becomes: "Facts: nil,"},
	{file: "feeds/journal/recover.go", is: "				s.sealed, s.end = false, next.PrevEnd\n", becomes: "				s.sealed = false\n", seeds: true},
	{file: "feeds/journal/roll.go", is: "	if err := w.file.Sync(); err != nil {\n", becomes: "	if err := w.file.Sync(); err != nil && w.file.Sync() != nil {\n"},
	{file: "feeds/journal/roll.go", is: "	if err := w.file.Sync(); err != nil {\n", becomes: "	if err := error(nil); err != nil {\n", own: "TestFaults$", seeds: true},
	{file: "feeds/journal/retain.go", is: "	if err := j.Put(context.Background(), facts...); err != nil {\n		return err\n	}\n	j.drop(gone, nil, floor)\n	j.stale = append(j.stale, gone...)\n	return j.unlink()\n",
		becomes: "	j.drop(gone, nil, floor)\n	j.stale = append(j.stale, gone...)\n	if err := j.unlink(); err != nil {\n		return err\n	}\n	return j.Put(context.Background(), facts...)\n"},
	{file: "feeds/journal/writer.go", is: "	err := j.makeDurable(head, len(b.items) > 0)\n", becomes: "	for _, r := range kept {\n		r.receipt.Commit = j.tip.commit + 1\n		r.finish(nil)\n	}\n	err := j.makeDurable(head, len(b.items) > 0)\n	if err == nil {\n		return\n	}\n"},
	{file: "feeds/http/idempotency.go", is: "		return []journal.Fact{{Key: f.answered.fact(key), Value: appendKept(nil, at, body, res)}}\n", becomes: "		_ = appendKept(nil, at, body, res)\n		return nil\n", seeds: true},
	{file: "feeds/http/route.go", is: "	case owner != \"\" && want != \"\" && owner != want:\n", becomes: "	case owner != \"\" && want != \"\" && owner != want && false:\n"},
	{file: "feeds/http/handler.go", is: "	res, err := f.o.Intake.Submit(f.work, &q.sub)\n	if err != nil {\n", becomes: "	res, err := f.o.Intake.Submit(f.work, &q.sub)\n	if err != nil && false {\n", seeds: true},
	{file: "feeds/tlslines/conn.go", is: "		err = c.flush(ctx)\n	} else {\n", becomes: "		go c.flush(context.WithoutCancel(ctx))\n		err = nil\n	} else {\n"},
	{file: "feeds/tlslines/conn.go", is: "	reset(c.raw)\n	c.f.counts.broken.Add(1)\n", becomes: "	_ = c.tls.Close()\n	c.f.counts.broken.Add(1)\n"},
	{file: "feeds/kafka/partition.go", is: "p.next, p.fresh = at.journal, at.journal == 0\n", becomes: "p.next, p.fresh = at.next, false\n", own: "-", elsewhere: "./kafka TestFaultALostEndOfTheJournalIsReadAgain"},
	{file: "feeds/kafka/partition.go", is: "		case err == nil:\n			// promise: the group", becomes: "		case err == nil || true:\n			// promise: the group"},
	{file: "feeds/kafka/place.go", is: "	p.ahead = committed > p.journal\n", becomes: "	p.ahead = false\n"},
	{file: "feeds/kafka/records.go", is: "if crc32.Checksum(b[21:], castagnoli) != be.Uint32(b[17:]) {", becomes: "if crc32.Checksum(b[21:], castagnoli) != be.Uint32(b[17:]) && false {"},
	{file: "feeds/kafka/feed.go", is: "	wg.Wait()\n	// promise: what was kept is committed before the partitions can be given to\n	// another member, which begins at what is committed.\n	f.commit(gen, m)\n", becomes: "	wg.Wait()\n", own: "-", elsewhere: "./kafka TestTwoInstances"},
	{file: "feeds/adapt/threatx.go", is: "	\"cookie\":          nil, // promise: never kept\n", becomes: "	\"cookie\":          asGiven(func(r *record) *string { return &r.threatx.randomID }),\n"},
	{file: "feeds/adapt/cloudfront.go", is: "	case !known && secretKey(name):\n", becomes: "	case !known && secretKey(name) && false:\n"},
	{file: "feeds/adapt/cloudflare.go", is: "	if secretKey(key) || len(value) == 0 {\n		return // promise", becomes: "	if len(value) == 0 {\n		return // promise"},
	{file: "feeds/adapt/aws_waf_rules.go", is: "			m.Data = \"\" // promise: not even a piece of a cookie is stored\n", becomes: ""},
	{file: "feeds/adapt/netacea.go", is: "	case !known && secretKey(key), known && place == nDropped:\n", becomes: "	case known && place == nDropped:\n"},
	{file: "feeds/adapt/coraza_messages.go", is: "	if collection == \"REQUEST_COOKIES\" || (", becomes: "	if false && ("},
	{file: "feeds/adapt/aws_waf.go", is: "		case secretHeader(name):\n			return // promise", becomes: "		case secretHeader(name) && false:\n			return // promise"},
	{file: "feeds/adapt/suricata_record.go", is: "		case !known && secretName(key):\n", becomes: "		case !known && secretName(key) && false:\n"},
	{file: "feeds/kinesis/shard.go", is: "	facts := []journal.Fact{next.fact(s.id)}\n", becomes: "	facts := []journal.Fact{}\n	defer s.f.o.Facts.PutLater(next.fact(s.id))\n"},
	{file: "feeds/kinesis/feed.go", is: "if !running[s.ID] && !marks[s.ID].Done && finished(s.Parent) && finished(s.Adjacent) {", becomes: "if _ = finished; !running[s.ID] && !marks[s.ID].Done {"},
	{file: "feeds/s3/object.go", is: "r.f.submit(ctx, records, []journal.Fact{partFact(r.id, next)})", becomes: "r.f.submit(ctx, records, nil)"},
	{file: "feeds/s3/feed.go", is: "	if err == nil {\n		// promise", becomes: "	{\n		// promise"},
	{file: "feeds/intake/batch.go", is: "	b.counts.Suppressed += uint64(b.out.Suppressed)\n", becomes: ""},
	{file: "feeds/intake/batch.go", is: "	receipt, err := b.door.o.Log.Append(ctx, &jb)\n", becomes: "	receipt, err := journal.Receipt{}, error(nil)\n	go b.door.o.Log.Append(context.WithoutCancel(ctx), &jb)\n", seeds: true},
	{file: "feeds/intake/door.go", is: "	if err := d.o.Quarantine.Put(ctx, b.entries...); err != nil {\n		return Result{}, fmt.Errorf(\"intake: feed %s: %w\", d.o.Feed, err)\n	}\n	return b.append(ctx, res)\n",
		becomes: "	res, err := b.append(ctx, res)\n	if err == nil {\n		err = d.o.Quarantine.Put(ctx, b.entries...)\n	}\n	return res, err\n"},
	{file: "feeds/intake/retry.go", is: "			return []journal.Fact{{Key: retriedPrefix + e.ID, Value: []byte(tenant)}}\n", becomes: "			_ = tenant\n			return nil\n"},
	{file: "exporter/emit/emit.go", is: "if seg.Epoch != s.epoch {", becomes: "if false {", locks: true},
	{file: "exporter/dir/object.go", is: "	return o.Sync()\n", becomes: "	return nil\n"},
	{file: "exporter/dir/folders.go", is: "	<-now.done\n	return f.run(dir, s)\n", becomes: "	<-now.done\n	s.err = now.err\n	close(s.done)\n	return s.err\n"},
	{file: "exporter/dir/dir.go", is: "	err = o.link(path)\n	if errors.Is", becomes: "	_ = os.Remove(path)\n	err = o.link(path)\n	if errors.Is"},
	{file: "exporter/lane/lane.go", is: "	if err := e.quarantine.Refused(ctx, r); err != nil {\n", becomes: "	if err := e.quarantine.Refused(ctx, r); err != nil && false {\n"},
	{file: "exporter/lane/stream.go", is: "		l.shard.Home.Advance(l.Key, l.fact)\n		r.release(l)\n	}\n}\n", becomes: "		l.fact.Settle(l.sent, state.Counts{}, now)\n		l.shard.Home.Advance(l.Key, l.fact)\n		r.release(l)\n	}\n}\n", seeds: true},
	{file: "exporter/lane/stream.go", is: "			l.fact.Read, l.fact.ReadCounts = l.fact.Pos, state.Counts{}\n", becomes: "			_ = state.Counts{}\n", seeds: true},
	{file: "exporter/state/home.go", is: "	if err := h.log.Put(ctx, fact(dropKey+k.String(), p)); err != nil {\n", becomes: "	if err := error(nil); err != nil {\n", seeds: true},
	{file: "exporter/kinesis/kinesis.go", is: "if s.o.Shared == nil || held > maxBuffer || s.failures > 0 || s.dry > 0 || s.most < maxRecords {", becomes: "if s.o.Shared == nil || held > maxBuffer {"},
	{file: "exporter/kinesis/flow.go", is: "			if blocked[r.slot] || s.busy[r.slot] {\n", becomes: "			if false {\n", seeds: true},
	{file: "exporter/kinesis/flow.go", is: "		if !r.stored {\n			failed[r.shard]++\n			back = append(back, u...)\n			continue\n		}\n", becomes: "		if !r.stored {\n			failed[r.shard]++\n			for _, rec := range u {\n				rec.seg.left--\n			}\n			continue\n		}\n", seeds: true},
	{file: "exporter/s3/multipart.go", is: "			MpuObjectSize: &d.Size,\n", becomes: ""},
	{file: "exporter/s3/sink.go", is: "			p.once = aws.String(\"*\")\n", becomes: "", seeds: true},
	{file: "exporter/s3/sink.go", is: "		ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(d.SHA256[:])), Metadata: p.metadata(),\n", becomes: "		Metadata: p.metadata(), CacheControl: func() *string { _ = base64.StdEncoding; return nil }(),\n"},
	{file: "exporter/trial/receive.go", is: "	if err := r.out.sync(); err != nil {\n		_ = c.SetLinger(0) // as above\n", becomes: "	if err := error(nil); err != nil {\n		_ = c.SetLinger(0) // as above\n"},
}
