// What the memory system of a GPU would make of the accesses of an emulated thread block: wavefronts of shared memory and sectors
// of global memory, counted over the least that the same bytes need.
#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

namespace emulate {

struct Counts {
    int64_t row_copies;    // asynchronous copies of 16 bytes of what is not weights
    int64_t rows_at_once;  // those whose thread waits for them before it has multiplied anything since
    int64_t rows_outlived; // those still on their way after a wait for something else
    int64_t wavefronts, conflicts;        // of shared memory: the least, and those that bank conflicts add
    int64_t matrices, matrix_conflicts;   // the same of ldmatrix
    int64_t arrivals, arrival_conflicts;  // the same of asynchronous copies
    int64_t sectors, uncoalesced;         // of 32 bytes of global memory: the least, and those read or written besides
};
inline Counts counts;

enum Kind { LOAD, STORE, COPY_TO, COPY_FROM, STORE_GLOBAL };

struct Access {
    uint64_t address;
    int bytes;
};

// Wavefronts of one access to shared memory: lanes 16 bytes wide go by eight, others together; a bank gives a word of 4 bytes at a time.
inline std::pair<int, int> wavefronts(const std::vector<Access>& lanes) {
    const size_t together = lanes[0].bytes == 16 ? 8 : 32;
    int taken = 0, least = 0;
    for (size_t first = 0; first < lanes.size(); first += together) {
        std::map<int, std::set<uint64_t>> banks;
        std::set<uint64_t> words;
        for (size_t lane = first; lane < std::min(first + together, lanes.size()); ++lane)
            for (uint64_t word = lanes[lane].address / 4; word <= (lanes[lane].address + lanes[lane].bytes - 1) / 4; ++word)
                banks[int(word % 32)].insert(word), words.insert(word);
        size_t most = 0;
        for (const auto& [bank, different] : banks) most = std::max(most, different.size());
        taken += int(most), least += int(words.size() + 31) / 32;
    }
    return {least, taken - least};
}

inline std::pair<int, int> sectors(const std::vector<Access>& lanes) {
    std::set<uint64_t> touched;
    int bytes = 0;
    for (const Access& a : lanes) {
        for (uint64_t sector = a.address / 32; sector <= (a.address + a.bytes - 1) / 32; ++sector) touched.insert(sector);
        bytes += a.bytes;
    }
    const int least = (bytes + 31) / 32;
    return {least, std::max(0, int(touched.size()) - least)};
}

// Lanes run one after another here; the i-th access of a kind that each makes between two points of synchronisation counts as one of
// the warp.
struct Trace {
    struct Thread {
        int epoch = 0;
        std::map<int, int> made;  // by kind, in this epoch
    };
    std::vector<Thread> threads;
    std::map<std::vector<int>, std::vector<Access>> accesses;  // by warp, kind, epoch, number

    void add(unsigned thread, Kind kind, uint64_t address, int bytes) {
        Thread& t = threads[thread];
        accesses[{int(thread / 32), kind, t.epoch, t.made[kind]++}].push_back({address, bytes});
    }
    void synchronised(unsigned thread) { ++threads[thread].epoch, threads[thread].made.clear(); }

    void finish() const {
        for (const auto& [key, lanes] : accesses) {
            const bool global = key[1] >= COPY_FROM, copy = key[1] == COPY_TO;
            const auto [least, more] = global ? sectors(lanes) : wavefronts(lanes);
            (global ? counts.sectors : copy ? counts.arrivals : counts.wavefronts) += least;
            (global ? counts.uncoalesced : copy ? counts.arrival_conflicts : counts.conflicts) += more;
        }
    }
};

}  // namespace emulate
