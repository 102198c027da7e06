// A contender like worker.py: etcd's own Go client of the v2 API does one order after another, each a line of JSON on
// stdin, and prints the figures.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/client"
	"go.etcd.io/etcd/version"
)

type order struct {
	Do        string
	Endpoints []string
	Timeout   float64
	What      string
	Warm      string
	Key       string
	Value     string
	Tasks     int
	Seconds   float64
	Endpoint  string
	Prefix    string
	Limit     float64
}

type figures map[string]interface{}

func main() {
	var keys client.KeysAPI
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var o order
		check(json.Unmarshal(lines.Bytes(), &o))
		switch o.Do {
		case "version":
			say(figures{"go": strings.TrimPrefix(runtime.Version(), "go"), "client": version.Version})
		case "open":
			keys = open(o.Endpoints, o.Timeout)
			say(figures{})
		case "rate":
			say(rate(keys, o))
		case "tree":
			say(tree(keys, o))
		case "answers":
			say(answers(keys, o))
		case "watch":
			say(watch(o))
		default:
			check(fmt.Errorf("unknown order %q", o.Do))
		}
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func say(f figures) {
	line, err := json.Marshal(f)
	check(err)
	fmt.Println(string(line))
}

// open makes a client as the documentation does, but with a transport that keeps more than two idle connections.
func open(endpoints []string, timeout float64) client.KeysAPI {
	c, err := client.New(client.Config{
		Endpoints:               endpoints,
		HeaderTimeoutPerRequest: time.Duration(timeout * float64(time.Second)),
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			MaxIdleConns:        0,
			MaxIdleConnsPerHost: 1000,
		},
	})
	check(err)
	return client.NewKeysAPI(c)
}

func once(keys client.KeysAPI, what, key, value string) error {
	var err error
	switch what {
	case "set":
		_, err = keys.Set(context.Background(), key, value, nil)
	case "get":
		_, err = keys.Get(context.Background(), key, nil)
	default:
		_, err = keys.Get(context.Background(), key, &client.GetOptions{Recursive: true})
	}
	return err
}

func cpu() float64 {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func rate(keys client.KeysAPI, o order) figures {
	check(once(keys, o.What, o.Key, o.Value))
	took := make([][]float64, o.Tasks)
	start, used := time.Now(), cpu()
	end := start.Add(time.Duration(o.Seconds * float64(time.Second)))
	var wait sync.WaitGroup
	for task := 0; task < o.Tasks; task++ {
		wait.Add(1)
		go func(task int) {
			defer wait.Done()
			for now := start; ; {
				begin := now
				check(once(keys, o.What, o.Key, o.Value))
				now = time.Now()
				took[task] = append(took[task], now.Sub(begin).Seconds())
				if !now.Before(end) {
					break
				}
			}
		}(task)
	}
	wait.Wait()
	used = cpu() - used
	passed := time.Since(start).Seconds()
	var all []float64
	for _, some := range took {
		all = append(all, some...)
	}
	p50, p99 := quantiles(all, 0)
	return figures{"rate": float64(len(all)) / passed, "p50": p50, "p99": p99, "cpu": used / float64(len(all))}
}

func quantiles(values []float64, none float64) (float64, float64) {
	if len(values) == 0 {
		return none, none
	}
	sort.Float64s(values)
	return values[len(values)/2], values[int(float64(len(values))*0.99)]
}

func tree(keys client.KeysAPI, o order) figures {
	check(once(keys, "get", o.Warm, ""))
	before, start := peak(), time.Now()
	check(once(keys, "tree", o.Key, ""))
	took := time.Since(start).Seconds()
	return figures{"seconds": took, "peak": peak() - before}
}

// peak is the most memory that this process ever had, in bytes.
func peak() int {
	status, err := os.ReadFile("/proc/self/status")
	check(err)
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	size, err := strconv.Atoi(strings.Fields(rest)[0])
	check(err)
	return size * 1024
}

func answers(keys client.KeysAPI, o order) figures {
	times, errors := []float64{}, []string{}
	end := time.Now().Add(time.Duration(o.Seconds * float64(time.Second)))
	for time.Now().Before(end) {
		if err := once(keys, "get", o.Key, ""); err != nil {
			errors = append(errors, err.Error())
			time.Sleep(time.Millisecond)
			continue
		}
		times = append(times, float64(time.Now().UnixNano())/1e9)
	}
	return figures{"times": times, "errors": errors}
}

// watch follows a busy prefix until its last event, or for the limit; a watcher that fails is made anew, where it says.
func watch(o order) figures {
	keys := open([]string{o.Endpoint}, 0)
	context, cancel := context.WithCancel(context.Background())
	defer cancel()
	seen, last, ordered, finished, events, errors := map[string]bool{}, uint64(0), true, false, 0, 0
	var lags []float64
	done := make(chan struct{})
	go func() {
		defer close(done)
		watcher := keys.Watcher(o.Prefix, &client.WatcherOptions{Recursive: true})
		for {
			event, err := watcher.Next(context)
			if context.Err() != nil {
				return
			}
			if err != nil {
				errors++
				refused, ok := err.(client.Error)
				if !ok {
					return
				}
				watcher = keys.Watcher(o.Prefix, &client.WatcherOptions{Recursive: true, AfterIndex: refused.Index})
				continue
			}
			events++
			ordered = ordered && event.Node.ModifiedIndex > last
			last = event.Node.ModifiedIndex
			if event.Node.Value == "end" {
				finished = true
				return
			}
			number, sent, _ := strings.Cut(event.Node.Value, ":")
			at, _ := strconv.ParseInt(sent, 10, 64)
			seen[number] = true
			lags = append(lags, float64(time.Now().UnixNano()-at)/1e9)
		}
	}()
	time.Sleep(500 * time.Millisecond)
	say(figures{"ready": true})
	used := cpu()
	select {
	case <-done:
	case <-time.After(time.Duration(o.Limit * float64(time.Second))):
		cancel()
		<-done
	}
	used = cpu() - used
	p50, p99 := quantiles(lags, o.Limit)
	if events == 0 {
		events = 1
	}
	return figures{
		"arrived": len(seen), "ordered": ordered, "finished": finished, "errors": errors,
		"p50": p50, "p99": p99, "cpu": used / float64(events),
	}
}
